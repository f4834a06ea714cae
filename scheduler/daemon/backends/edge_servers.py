"""What is known of edge servers: in which form each takes tensors, and what it says of itself.

The protocol lets a server take tensors in JSON only. Metadata is not enough to know: KServe takes binary tensors and
does not say so, and MLServer answers 500 to them. So the first batch of a model is sent in the form that is likely;
where it fails in a way that the form may have caused, it is sent again in the other form at once, and what was answered
is known.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from scheduler.daemon.logs import log
from scheduler.domain.memory import Remembered, entries, rows
from scheduler.domain.requests import Place
from scheduler.wire.servers import BINARY_EXTENSION, TensorForm, likely_form

VERSION = 1
AGAINST_ITS_WORD = 2
"""Batches in a row that a server which says that it takes binary tensors must answer in JSON only, before it is
believed to take no others. Judgement: one may have failed for another cause."""


@dataclass(frozen=True, slots=True)
class Description:
    """What a server says of itself."""

    server: str = ""
    """Name and version; empty: nothing."""
    extensions: tuple[str, ...] = ()
    models: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """By model, as far as it says it: `max_batch`, `preferred_batches`, `instances`, `parallel`, `identity`."""

    @property
    def name(self) -> str:
        """The name alone."""
        return self.server.partition(" ")[0]

    def identities(self) -> dict[str, object]:
        """Returns the identities of card and files by model, where it says them."""
        return {model: said["identity"] for model, said in self.models.items() if "identity" in said}

    def parallel(self) -> int | None:
        """Returns how many batches it serves at once, of whichever model: the least that it says; None: nothing."""
        numbers = (said.get("parallel", said.get("instances")) for said in self.models.values())
        return min((number for number in numbers if isinstance(number, int)), default=None)

    def largest_batches(self) -> tuple[tuple[str, int], ...]:
        """Returns the most items in a batch by model, where it says them."""
        limits = ((model, said.get("max_batch")) for model, said in sorted(self.models.items()))
        return tuple((model, limit) for model, limit in limits if isinstance(limit, int))


@dataclass(slots=True)
class _Habit:
    """How one model of one server takes tensors."""

    form: TensorForm
    learned: bool = False
    """Whether a batch was answered in that form, now or before a restart."""
    sure: bool = False
    """Whether one was since the server was last away."""
    contrary: int = 0
    """Batches in a row that were only answered in the other form."""


class EdgeServers:
    """What is known of every edge server that was used, by its URL; what it learns outlives backends and processes."""

    def __init__(self) -> None:
        """Starts without knowledge."""
        self._habits: dict[tuple[str, str], _Habit] = {}
        self._described: dict[str, Description] = {}
        self.back: Callable[[Place, Mapping[str, object], float], None] = lambda *_: None
        """Told which identities a server reports by model, and when it was asked, before it gets batches again: another
        one may be there."""

    def described(self, url: str, description: Description) -> None:
        """Takes over what a server says of itself."""
        self._described[url] = description
        for (of_url, _), habit in self._habits.items():
            if of_url == url and not habit.learned:
                habit.form = self._likely(url)

    def says_other(self, url: str, model: str, said: Mapping[str, object]) -> bool:
        """Whether a server now says another limit of a model than when it was asked what it is."""
        described = self._describing(url).models.get(model, {})
        return any(said.get(key) is not None and said[key] != described.get(key) for key in ("max_batch", "parallel"))

    def form(self, url: str, model: str) -> TensorForm:
        """Returns the form to send a model's tensors in."""
        return self._habit(url, model).form

    def sure(self, url: str, model: str) -> bool:
        """Whether the server is known to take that form, so that a failure has another cause."""
        return self._habit(url, model).sure

    def answered(self, url: str, model: str, form: TensorForm) -> None:
        """Learns that a batch was answered in a form; logs what is new once."""
        habit = self._habit(url, model)
        if form is habit.form:
            habit.sure, habit.contrary = True, 0
            new, habit.learned = not habit.learned, True
        else:
            habit.contrary += 1
            says_so = BINARY_EXTENSION in self._describing(url).extensions and form is TensorForm.JSON
            new = habit.contrary >= (AGAINST_ITS_WORD if says_so else 1)
            if new:
                self._habits[url, model] = _Habit(form, learned=True, sure=True)
        if new:
            log(logging.INFO, "edge_tensors_learned", url=url, model=model, form=form.value, message=_remedy(form))

    def doubt(self, url: str) -> None:
        """Notes that a server was away: another one may be there."""
        for (of_url, _), habit in self._habits.items():
            if of_url == url:
                habit.sure = False

    def status(self, url: str, tensors: str) -> dict[str, object]:
        """Returns what is known of a server as /v1/status shows it; `tensors` as configured."""
        said = self._describing(url)
        of_this = ((model, habit) for (of_url, model), habit in sorted(self._habits.items()) if of_url == url)
        learned = {model: habit.form.value for model, habit in of_this if habit.learned}
        models = {model: dict(of_model) for model, of_model in sorted(said.models.items())}
        return {"url": url, "server": said.server, "tensors": tensors, "learned_tensors": learned, "models": models}

    def remembered(self) -> Remembered:
        """Returns the forms as a part of what is remembered."""

        def snapshot(now_s: float) -> object:  # noqa: ARG001
            learned = [(url, model, habit) for (url, model), habit in sorted(self._habits.items()) if habit.learned]
            return [{"url": url, "model": model, "form": habit.form.value} for url, model, habit in learned]

        def restore(content: object, age_s: float, now_s: float) -> None:  # noqa: ARG001
            found = {}
            for row in rows(content):
                given = entries(row)
                found[str(given["url"]), str(given["model"])] = _Habit(TensorForm(given["form"]), learned=True)
            self._habits.update(found)

        return Remembered("edge-tensors", VERSION, "", snapshot, restore)

    def _habit(self, url: str, model: str) -> _Habit:
        if (url, model) not in self._habits:
            self._habits[url, model] = _Habit(self._likely(url))
        return self._habits[url, model]

    def _likely(self, url: str) -> TensorForm:
        return likely_form(self._describing(url).name)

    def _describing(self, url: str) -> Description:
        return self._described.get(url, Description())


def _remedy(form: TensorForm) -> str:
    return f'to say so from the start, set tensors = "{form.value}" in [edge]; one setting is for all models'
