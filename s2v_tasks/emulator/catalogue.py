"""Catalogue of the vendor's documented error responses: name -> (HTTP status, code, message).

A name is the code itself; where one code means different things by its message or status, the variants are
named ``code/variant`` (an error without a code: ``/variant``). Codes of sibling models are here too, because
one gateway responds for all of them.

Source: vendor's error-code page (Model Studio), as of 2026-10; messages marked ``~`` are our
wording, because the page lists the code without a message.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class VendorError:
    """One documented error response: HTTP status, ``code`` and ``message`` of its JSON body."""

    status: int
    code: str
    message: str


_VERDICTS = {
    "InvalidFile.NoHuman": "The input image has no human body. Please upload other image with single person.",
    "InvalidFile.MultiHuman": (
        "The input image has multi human bodies. Please upload other image with single person."
    ),
    "InvalidFile.Content": (
        "The input image has no human body or multi human bodies. "
        "Please upload other image with single person."
    ),
    "InvalidFile.BodyProportion": (
        "The proportion of the detected person in the image is too large or too small, "
        "please upload other image."
    ),
    "InvalidFile.FacePose": (
        "The pose of the detected face is invalid, please upload other image with the expected orientation."
    ),
    "InvalidFile.FullFace": (
        "The pose of the detected face is invalid, please upload other image with whole face."
    ),
    "InvalidFile.FrontBody": (
        "The pose of the detected person is invalid, please upload other image with the front view."
    ),
    "InvalidFile.BodyPose": (
        "The pose of the detected person is invalid, please upload other image with whole body and "
        "expected orientation."
    ),
    "InvalidFile.FullBody": (
        "The pose of the detected person is invalid, please upload other image with whole body, "
        "or change the ratio parameter to 1:1."
    ),
    "InvalidFile.Value": "The value of the image is invalid, please upload other clearer image.",
    "InvalidFile.FaceNotMatch": ("There are no matched face in the video with the provided reference image."),
    "InvalidPerson": (
        "The input image has no human body or multi human bodies. "
        "Please upload other image with single person."
    ),
    "InvalidImage.NoHumanFace": "No human face detected.",
}

_INSPECTION = "Input data may contain inappropriate content."

_IMAGE = {
    "InvalidURL": "The request URL is invalid, make sure the url is correct and is an image.",
    "InvalidFile.Size": "Invalid file size. The video/audio/image file size must be less than 20MB.",
    "InvalidFile.ImageSize": "The size of image is beyond limit.",
    "InvalidFile.AspectRatio": (
        "Invalid file ratio. The file aspect ratio (height/width) must be between 2.0 and 0.5."
    ),
    "InvalidFile.Format": (
        "Invalid file format, the request file format is one of the following types: "
        "MP4, AVI, MOV, MP3, WAV, AAC, JPEG, JPG, PNG, BMP, and WEBP."
    ),
    "InvalidFile.Resolution": (
        "The image resolution is invalid, please make sure that the largest length of image is smaller than "
        "7000, and the smallest length of image is larger than 400."
    ),
    "InvalidFile.Openerror": "Invalid file, cannot open file as video/audio/image.",
    "InvalidImage.ImageSize": "The size of image is beyond limit.",
    "InvalidImage.FileFormat": "Invalid image type. Please ensure the uploaded file is a valid image.",
    "InvalidImageResolution": "The input image resolution is too large or small.",
    "InvalidImageFormat": "The input image is in invalid format.",
    "BadRequest.UnsupportedFileFormat": "Input file format is not supported.",
    "BadRequest.TooLarge": "Payload Too Large.",
    "DataInspectionFailed": _INSPECTION,
    "data_inspection_failed": _INSPECTION,
    "IPInfringementSuspect": "Input data is suspected of being involved in IP infringement.",
}

_INVALID_PARAMETER = {
    "InvalidParameter": "Invalid image format or corrupted file",
    "InvalidParameter/decode": "read image error.",
    "InvalidParameter/format": "Input files format not supported.",
    "InvalidParameter/size": "the size of input image is too small or too large.",
    "InvalidParameter/moderation": "The image content does not comply with green network verification.",
    "InvalidParameter/content-type": "Wrong Content-Type of multimodal url",
    "InvalidParameter/no-authorization": "No authorization to fetch the input image.",  # ~
    "InvalidParameter/download-failed": "Failed to download input files.",
    "InvalidParameter/download-timeout": "Download of the input image timed out.",  # ~
    "InvalidParameter/model-not-exist": "Model not exist.",
    "InvalidParameter/field-required": "Field required: input.media",
    "InvalidParameter/inspection-size": "The image size is not supported for the data inspection.",
    "InvalidParameter/url-error": "url error, please check url\uff01",
    "InternalError.Algo.DataInspectionFailed": "Input image data may contain inappropriate content.",
    "InternalError.Algo.InvalidParameter": "Failed to download multimodal content",
}
"""The last five as seen in public, 2024-11 to 2026-11."""

_ORIGIN = {
    "InvalidURL.Timeout": "Download the image timeout, please check network connection.",
    "InvalidURL.ConnectionRefused": "Connection to the image refused, please provide available URL.",
    "InvalidFile.DownloadFailed": "The image file cannot be downloaded.",
    "BadRequest.InputDownloadFailed": "Failed to download the input file.",
    "InvalidParameter.DataInspection": (
        "Unable to download the media resource during the data inspection process."
    ),
}

RATE_LIMIT_MESSAGE = "Requests rate limit exceeded, please try again later."
_BURST = (
    "Request rate increased too quickly. To ensure system stability, please adjust your client logic to "
    "scale requests more smoothly over time."
)
_QUOTA = "Allocated quota exceeded, please increase your quota limit."
_FREE_QUOTA = "Free allocated quota exceeded."

_TOO_MANY = {
    "Throttling": "Requests throttling triggered.",
    "Throttling.RateQuota": RATE_LIMIT_MESSAGE,
    "limit_requests": "You exceeded your current requests list.",
    "Throttling.BurstRate": _BURST,
    "limit_burst_rate": _BURST,
    "Throttling.AllocationQuota": _QUOTA,
    "Throttling.AllocationQuota/free-quota": _FREE_QUOTA,
    "insufficient_quota": "You exceeded your current quota, please check your plan and billing details.",
    "insufficient_quota/free-quota": _FREE_QUOTA,
    "CommodityNotPurchased": "Commodity has not purchased yet.",
    "PrepaidBillOverdue": "The prepaid bill is overdue.",
    "PostpaidBillOverdue": "The postpaid bill is overdue.",
    "BudgetLimitExceeded": "The budget limit of the workspace is exceeded.",  # ~
    "Throttling.Concurrency": "The number of concurrent requests exceeds the limit.",  # ~
    "Throttling/json": '{"code":"PostpaidBillOverdue","message":"The postpaid bill is overdue."}',
}

_CAPACITY = (
    "Too many requests. Your requests are being throttled due to system capacity limits. "
    "Please try again later."
)

_INTERNAL = {
    "InternalError": "An internal error has occured, try again later or contact service support.",
    "internal_error": "Internal server error!",
    "InternalError.Timeout": "An internal timeout error has occured during execution, try again later.",
    "InternalError.FileUpload": "oss upload error.",
    "InternalError.Algo/no-backend": "No backend server available",
    "InternalError.Algo": "Missing Content-Length of multimodal url.",
    "SystemError": "An system error has occured, try again later.",
    "RequestTimeOut": "Request timed out, try again later.",
    "ResponseTimeout": "Response timeout!",
    "ModelServiceFailed": "Failed to request model service.",
    "ModelServingError/500": _CAPACITY,
}

_UNAVAILABLE = {
    "ModelUnavailable": "Model is unavailable, try again later.",
    "ModelServingError": _CAPACITY,
}

_BAD_REQUEST = {
    "ClientDisconnect": "Client disconnected before task finished!",
    "ServiceUnavailableError": "The service is unavailable, try again later.",  # ~
    "APIConnectionError": "Connection error.",
    "Arrearage": "Access denied, please make sure your account is in good standing.",
    "isv.OUT_OF_SERVICE": "The account is out of service.",  # ~
    "BadRequest.EmptyParameters": 'Required parameter "parameters" missing from request.',
    "BadRequest.EmptyInput": "Required input parameter missing from request.",
    "BadRequest.EmptyModel": 'Required parameter "model" missing from request.',
    "BadRequest.IllegalInput": "The input parameter requires json format.",
    "UnsupportedOperation": "The operation is unsupported on the referee object.",
}

_UNAUTHORIZED = {
    "InvalidApiKey": "Invalid API-key provided.",
    "invalid_api_key": "Incorrect API key provided.",
    "InvalidApiKey/expired": "Token has expired.",  # ~
    "NOT AUTHORIZED": (
        "Access denied: Either you are not authorized to access this workspace, "
        "or the workspace does not exist."
    ),
}

_FORBIDDEN = {
    "AccessDenied": "Access denied.",
    "access_denied": "Access denied.",
    "Endpoint.AccessDenied": "Workspace endpoint access denied.",
    "/overdue": "Access denied due to overdue account",
    "AccessDenied.Unpurchased": (
        "Access to model denied. Please make sure you are eligible for using the model."
    ),
    "Model.AccessDenied": "Model access denied.",
    "Workspace.AccessDenied": "Workspace access denied.",
    "AllocationQuota.FreeTierOnly": (
        "The free tier of the model has been exhausted. If you want to continue access the model on a paid "
        'basis, please disable the "use free tier only" mode in the management console.'
    ),
}

_NOT_FOUND = {
    "ModelNotFound": "Model can not be found.",
    "model_not_found": "The model does not exist or you do not have access to it.",
    "NotFound": "Not found!",  # ~
    "WorkSpaceNotFound": "WorkSpace can not be found.",
}

_UNLISTED = {"Emulator.Unlisted": "A response that no documentation names."}  # ~ for "anything else"


def _catalogue() -> Iterator[tuple[str, VendorError]]:
    tables = (
        (400, (_VERDICTS, _IMAGE, _INVALID_PARAMETER, _ORIGIN, _BAD_REQUEST, _UNLISTED)),
        (401, (_UNAUTHORIZED,)),
        (403, (_FORBIDDEN,)),
        (404, (_NOT_FOUND,)),
        (429, (_TOO_MANY,)),
        (500, (_INTERNAL,)),
        (503, (_UNAVAILABLE,)),
    )
    for status, rows in tables:
        for table in rows:
            for name, message in table.items():
                yield name, VendorError(status, name.partition("/")[0], message)


CATALOGUE: Mapping[str, VendorError] = MappingProxyType(dict(_catalogue()))
"""Every documented error response by name."""
