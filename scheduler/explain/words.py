"""The words for causes, queues, reasons and ends, as `edgeburst explain` prints them."""

from scheduler.dispatch.decision_ring import CANCELLED
from scheduler.domain.batches import WhyLeft
from scheduler.domain.decisions import Cause, Reason
from scheduler.domain.errors import RefusalKind
from scheduler.domain.lifecycle import State

REFUSED = "refused"
"""Said of a decision that put the request into no queue."""

CAUSES = {
    Cause.ARRIVAL: "on arrival",
    Cause.DEFERRAL_OVER: "as it could not be deferred any longer",
    Cause.DISPLACED: "as another request took its place",
    Cause.EDGE_SENT: "when an edge batch left without it",
    Cause.EDGE_DELAYED: "because the edge was slower than forecast",
    Cause.NO_SLOT: "because it had waited too long for a free function call",
    Cause.BISECTED: "because its deadline had passed while it waited to be sent again in half a batch",
    Cause.FAILURE: "after a backend had failed",
    Cause.QUOTA: "after the provider's quota had refused its function batch",
    Cause.LIMITS: "because limits or the configuration had changed, or a limit held its batch back",
    Cause.PLAN: "under a new plan",
    Cause.SPEND_CAP: "because the spend cap held its batch back",
    Cause.TOP_UP: "as a function batch that was leaving had room",
    Cause.OVERDUE_SENT: "as the edge had no room for what was late already",
    Cause.PIGGYBACK: "as an edge batch that was leaving had room",
    Cause.RECLAIMED: "as the following edge batch had room for it after all",
    Cause.HEDGE: "because its batch was overdue",
    Cause.TRIAL: "to learn whether a place that seemed too slow for it still was",
}
"""What led to a decision."""

QUEUES = {
    State.EDGE_BATCH.value: "it was put into the edge's next batch",
    State.EDGE_LATER.value: "it was left to wait for a later edge batch",
    State.FUNCTION.value: "it was put into the function batch that was being gathered",
    State.DEFERRED.value: "it was left to wait for an idle edge",
    State.OVERDUE.value: "it was queued to be answered after its deadline",
    REFUSED: "it was refused",
}
"""What a choice did with the request, by the word of its queue."""

MOVES = {
    Cause.TOP_UP: "it was taken along to {place}",
    Cause.OVERDUE_SENT: "it was sent to {place}",
    Cause.PIGGYBACK: "it was taken along to {place}",
    Cause.RECLAIMED: "it was taken back into the next batch of {place}",
    Cause.HEDGE: "a second copy was sent to {place}",
    Cause.TRIAL: "it was put into the next batch for {place}",
}
"""What a move did with it in which no offers were compared."""

GATES = {
    Reason.CLASS: "class not allowed",
    Reason.NO_BACKEND: "nothing serves it",
    Reason.FAILED_THERE: "failed there before",
    Reason.QUOTA: "over the quota",
    Reason.TOO_LARGE: "too large",
    Reason.CIRCUIT_OPEN: "does not answer",
    Reason.BATCH_FULL: "batch full",
    Reason.JOINS_LATE: "batch would be late",
    Reason.FIRST_DEADLINE: "first member late",
    Reason.NO_SLOT: "no free call in time",
    Reason.COLD: "cold start",
    Reason.LATE: "late",
    Reason.TOO_RISKY: "too risky",
    Reason.SPEND_CAP: "spend cap",
    Reason.BUDGET: "missed on purpose",
    Reason.GIVES_WAY: "kept for priority",
    Reason.NOT_SERVED_LATE: "not served late",
    Reason.NO_PLACE_GIVEN_UP: "no place given up",
}
"""Why an offer was impossible, short enough for a column."""

REASONS = {
    Reason.CLASS: "its class is edge-only, so no function was asked",
    Reason.NO_BACKEND: "nothing served its model at {place}",
    Reason.FAILED_THERE: "it had been at {place} before, and had failed or left",
    Reason.QUOTA: "the provider's quota had refused it at {place}, as often as it is sent there",
    Reason.TOO_LARGE: "it had more items, or more bytes, than a batch of {place} may have",
    Reason.CIRCUIT_OPEN: "{place} did not answer",
    Reason.BATCH_FULL: "the next batch of {place} had as many items as it may",
    Reason.JOINS_LATE: "with the newcomers that were expected, the batch that it would have opened at {place} was "
    "expected to miss its deadline",
    Reason.FIRST_DEADLINE: "with it, the batch of {place} was expected to miss the deadline of its first member",
    Reason.NO_SLOT: "no call of {place} would have been free before it was too late",
    Reason.COLD: "at {place} it would most likely have met a cold start, and been late for it",
    Reason.LATE: "at {place} it was expected to be answered after its deadline",
    Reason.TOO_RISKY: "at {place} the risk of being late would have cost more than a refusal",
    Reason.BUDGET: "its class may miss its objective, and to be in time would have cost more",
    Reason.SPEND_CAP: "a spend cap forbade the money for {place}",
    Reason.GIVES_WAY: "what {place} had left was kept for requests of higher priority",
    Reason.NOT_SERVED_LATE: "its class is not answered after its deadline",
    Reason.NO_PLACE_GIVEN_UP: "no member of the next batch of {place} could go elsewhere to make room",
    Reason.MONEY: "{place} would have cost more money",
    Reason.LATENESS: "the risk of being late weighed more at {place}",
    Reason.COST_TO_OTHERS: "{place} would have cost the other requests more",
    Reason.LEAST_TOTAL: "no other offer was possible or asked for",
}
"""What decided; `place` is that of the offer which the reason is about."""

LEFT = {
    WhyLeft.FULL: "it was full",
    WhyLeft.DEADLINE: "its first member would have been late otherwise",
    WhyLeft.LINK: "its first member would have been late otherwise: calls were overdue, as where the link stalls",
    WhyLeft.TIMER: "a planned wait was over",
    WhyLeft.PRICE: "waiting for another member did not pay any longer",
    WhyLeft.APART: "the next request had better go in a batch of its own",
    WhyLeft.REST: "the edge had taken back members of a batch that fell due",
    WhyLeft.DRAIN: "the daemon was shutting down",
    WhyLeft.IDLE_EDGE: "the edge was free",
    WhyLeft.HEDGE: "the batches that these requests were in were overdue",
    WhyLeft.HALF: "it was half of a batch whose content had been refused",
    WhyLeft.TRIAL: "its place was to show whether it was still as slow as believed",
    WhyLeft.WARMING: "an instance was to be kept warm",
}
"""Why a batch left when it did."""

OUTCOMES = {
    CANCELLED: "ended without an answer: its client went away",
    RefusalKind.QUEUE_FULL.value: "refused: the queue was full",
    RefusalKind.DEADLINE.value: "refused: no place could answer within its deadline",
    RefusalKind.NO_ANSWER.value: "refused: no answer had come by its deadline",
    RefusalKind.DRAINING.value: "refused: the daemon was shutting down",
    RefusalKind.BACKEND.value: "refused: a backend failed and no other could answer within its deadline",
    RefusalKind.QUOTA.value: "refused: the provider's quota refused its function call and no other place could answer "
    "within its deadline",
    RefusalKind.NO_BACKEND.value: "refused: nothing serves its model any more",
    RefusalKind.BAD_REQUEST.value: "refused: the backend refused its content",
    RefusalKind.TOO_LARGE.value: "refused: larger than any place takes",
}
"""How a request ended other than by an answer."""
