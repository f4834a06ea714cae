"""What the tenants spent in the last hour and day, for the next process: their own caps go on where they were."""

from scheduler.dispatch.ledger import Ledger
from scheduler.dispatch.spend_cap import SpendCap
from scheduler.domain.memory import Remembered, entries, finites, rows

VERSION = 1


def tenants_part(ledger: Ledger) -> Remembered:
    """Returns the tenants' spending as a part of what is remembered; amounts in another currency are not taken up."""
    money = ledger.tenants

    def snapshot(now_s: float) -> object:
        known = money.left | money.own
        spent = {name: {"hour": own.hour.ago(now_s), "day": own.day.ago(now_s)} for name, own in known.items()}
        return {"currency": ledger.currency, "spent": spent}

    def restore(content: object, age_s: float, now_s: float) -> None:
        given = entries(content)
        if given["currency"] != ledger.currency:
            raise ValueError(f"amounts in {ledger.currency} are needed")
        found = [
            (name, window, [finites(row) for row in rows(entries(windows)[window])])
            for name, windows in entries(given["spent"]).items()
            for window in ("hour", "day")
        ]
        pairs = [(name, window, [(ago_s, amount) for ago_s, amount in amounts]) for name, window, amounts in found]
        for name, window, amounts in pairs:
            own = money.own.get(name) or money.left.setdefault(name, SpendCap())
            for ago_s, amount in amounts:
                (own.hour if window == "hour" else own.day).remember(amount, at_s=now_s - age_s - ago_s)

    return Remembered("tenants", VERSION, "", snapshot, restore)
