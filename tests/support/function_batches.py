"""Function batches as the ledger sees them."""

from dataclasses import replace

from scheduler.domain.batches import Batch
from scheduler.domain.requests import Place


def function_batch(batch_id: int = 1, **changes: object) -> Batch:
    """Returns a batch of one item that is expected back half a second after its send, 0.3 s of it service."""
    batch = Batch(
        batch_id=batch_id,
        place=Place.function("1gb"),
        model="m",
        request_ids=(batch_id,),
        items=1,
        body_bytes=10,
        sent_at_s=0.0,
        deadline_s=1.0,
        give_up_at_s=2.0,
        predicted_finish_s=0.5,
        predicted_service_s=0.3,
    )
    return replace(batch, **changes)  # type: ignore[arg-type]
