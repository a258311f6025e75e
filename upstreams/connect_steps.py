"""The steps of connecting an account, in the words of the person who connects (pure)."""

from dataclasses import dataclass
from typing import Final, Literal

StepState = Literal["done", "failed", "open"]

# In the order in which they are taken; the codes are those of ``SetupFailed.step``.
STEPS: Final = (
    ("address", "Reach the service"),
    ("protected_resource_metadata", "Ask it where people sign in"),
    ("authorization_server_metadata", "Read how its sign-in works"),
    ("registration", "Introduce this gateway to it"),
    ("authorization", "Your consent on its page"),
    ("token", "Receive the access you gave"),
)


@dataclass(frozen=True, slots=True)
class ConnectStep:
    """One line of the list that a person sees when connecting failed."""

    title: str
    state: StepState


def steps_until(failed: str) -> list[ConnectStep]:
    """Return the steps with the failed one marked; nothing where the code is no step."""
    names = [name for name, _ in STEPS]
    if failed not in names:
        return []
    place = names.index(failed)
    return [
        ConnectStep(title, "done" if at < place else "failed" if at == place else "open")
        for at, (_, title) in enumerate(STEPS)
    ]


def title_of(step: str) -> str:
    """Return a step's words; for other codes the code itself."""
    return dict(STEPS).get(step, step)
