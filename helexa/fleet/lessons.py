"""What a host remembers of its models over a restart, as frozen values."""

from attrs import frozen

from helexa.fleet.limits import PrefillRate, Terms

MOST_MODELS = 256  # those longest not heard of are forgotten


@frozen
class Lesson:
    """How fast a model read its prompts, and the terms that bounded its context last."""

    model: str
    rate: PrefillRate | None = None
    terms: Terms | None = None


@frozen
class Lessons:
    """One for each model, the latest learned last."""

    lessons: tuple[Lesson, ...] = ()

    def of(self, model: str) -> Lesson:
        return next((each for each in self.lessons if each.model == model), Lesson(model))

    def after(self, lesson: Lesson) -> "Lessons":
        others = [each for each in self.lessons if each.model != lesson.model]
        return Lessons((*others, lesson)[-MOST_MODELS:])
