"""Which rules of `domain.faces` a run still uses: off once its sample shows one wrong, or none worth it."""

import asyncio
import logging

from s2v_tasks.domain import faces, missed_share
from s2v_tasks.domain.confidence import Tally
from s2v_tasks.domain.sample import SampleResults
from s2v_tasks.runtime.run_context import RunContext

_log = logging.getLogger(__name__)


class FaceRules:
    """The rules of one run; ``RunState.rules`` are those that are used.

    A rule that is switched off stays off, also for later processes of the run.
    """

    def __init__(self, run: RunContext) -> None:
        self._run = run
        self._limit = run.parameters.thresholds.max_missed_share
        configured = set(faces.RULES.get(run.parameters.screening.faces, ()))
        run.state.rules.update(configured - run.partitions.rules_off())

    @property
    def used(self) -> set[str]:
        """Those that are used."""
        return self._run.state.rules

    def is_proven(self, results: SampleResults) -> bool:
        """Whether what they drop is so little that the gate allows it, whatever open results will be."""
        return not self.used or results.missed[frozenset(self.used)].whole.is_below(self._limit)

    def may_be_proven(self, results: SampleResults) -> bool:
        """Whether it is proven if all open results are the best ones: then they are waited for."""
        if self.is_proven(results):
            return True
        whole = results.missed[frozenset(self.used)].whole
        return Tally(whole.hits, whole.misses + whole.may_miss).is_below(self._limit)

    async def evaluate(self, results: SampleResults) -> None:
        """Switch off what the sample shows to be wrong, and all if the proof would check most images."""
        if not self.used:
            return
        off = {}
        for rule in sorted(self.used):
            of_rule = results.missed[frozenset({rule})]
            if (shown := of_rule.above(self._limit)) is not None:
                off[rule] = missed_share.wrong_rule_message(rule, shown, self._limit)
        if not off and not self.is_proven(results):
            images, sample = self._images(results), results.run.settled
            if missed_share.is_out_of_reach(images, sample, self._limit):
                off = dict.fromkeys(self.used, missed_share.out_of_reach_message(images, sample, self._limit))
        if off:
            await asyncio.to_thread(
                self._run.partitions.set_rules_off, self._run.partitions.rules_off() | off.keys()
            )
            self.used.difference_update(off)  # in place: the queue goes by this set
        for message in dict.fromkeys(off.values()):
            _log.warning("%s", message)

    def _images(self, results: SampleResults) -> float:
        """How many images of the run can be of the proof: those not screened out whose faces are known."""
        state, of_proof = self._run.state, results.missed[frozenset(self.used)].whole
        kept = state.known + state.kept
        return (
            self._run.partitions.images
            * missed_share.share(kept, kept + state.screened_out)
            * missed_share.share(of_proof.hits + of_proof.misses, results.run.whole.hits)
        )
