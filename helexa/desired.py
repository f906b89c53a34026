"""Desired state: which models come back after a restart, as a frozen value and pure transitions.

A load is marked before it begins and unmarked when it ends; a mark found at start therefore means
that the load ended the process.  Two of those, and the model is not tried again until somebody asks.
"""

from collections.abc import Iterable

from attrs import evolve, frozen

MOST_DEATHS = 2


@frozen
class DesiredModel:
    """One model: `wanted` if it comes back at the next start, `is_loading` while a load is marked.

    `source` and `devices` (uuids) are what the load named beside the id; empty where it named
    nothing.  `deaths` counts loads in a row that ended the process; `failed` says why it is not
    tried any more.
    """

    id: str
    source: str = ""
    devices: tuple[str, ...] = ()
    wanted: bool = False
    is_loading: bool = False
    deaths: int = 0
    failed: str = ""


@frozen
class Desired:
    """Every model that was asked for, in the order of asking."""

    models: tuple[DesiredModel, ...] = ()

    def find(self, id: str) -> DesiredModel | None:
        return next((model for model in self.models if model.id == id), None)

    @property
    def to_load(self) -> tuple[DesiredModel, ...]:
        """What a start brings up."""
        return tuple(model for model in self.models if model.wanted and not model.failed)

    @property
    def given_up(self) -> tuple[DesiredModel, ...]:
        """What a start leaves alone; `failed` says why."""
        return tuple(model for model in self.models if model.failed)

    # -- transitions -------------------------------------------------------------------------------

    def loading(
        self, id: str, source: str = "", devices: tuple[str, ...] = (), *, asked: bool = False
    ) -> "Desired":
        """A load begins; one that a person `asked` for forgets what went wrong before."""
        model = self.find(id) or DesiredModel(id)
        deaths = 0 if asked else model.deaths
        return self._with(
            evolve(
                model,
                source=source,
                devices=devices if asked else devices or model.devices,
                is_loading=True,
                deaths=deaths,
                failed="",
            )
        )

    def loaded(self, id: str) -> "Desired":
        model = self.find(id) or DesiredModel(id)
        return self._with(evolve(model, wanted=True, is_loading=False, deaths=0, failed=""))

    def failed(self, id: str) -> "Desired":
        """A load, or a loaded model, ended in an error: what was wanted stays so, a new one is dropped."""
        model = self.find(id)
        if model is None or not model.wanted:
            return self.gone(id)
        return self._with(evolve(model, is_loading=False))

    def gone(self, id: str) -> "Desired":
        """It was unloaded because somebody asked."""
        return Desired(tuple(model for model in self.models if model.id != id))

    def stopped(self) -> "Desired":
        """The process ends by its own will: the loads in hand did not end it, and are still wanted."""
        return Desired(tuple(evolve(one, wanted=True, is_loading=False) for one in self.models))

    def started(self) -> "Desired":
        """A new process found this: what was loading has ended the one before."""
        return Desired(tuple(after_death(model) for model in self.models))

    def _with(self, model: DesiredModel) -> "Desired":
        if self.find(model.id) is None:
            return Desired((*self.models, model))
        return Desired(tuple(model if one.id == model.id else one for one in self.models))


def after_death(model: DesiredModel) -> DesiredModel:
    """`model` as a start finds it.  One whose first load ended the process is tried once more."""
    if not model.is_loading:
        return model
    deaths = model.deaths + 1
    failed = ""
    if deaths >= MOST_DEATHS:
        failed = (
            f"loading it ended the process {deaths} times; "
            f"`helexa-ctl load {model.id}` tries once more"
        )
    return evolve(model, wanted=True, is_loading=False, deaths=deaths, failed=failed)


def at_start(found: Desired | None, preload: Iterable[str]) -> Desired:
    """What a start goes by: the state that was left behind, or `preload` if there is none yet."""
    if found is not None:
        return found.started()
    return Desired(tuple(DesiredModel(id, wanted=True) for id in dict.fromkeys(preload)))
