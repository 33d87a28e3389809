"""Damped guidance: gradient guidance whose steps are small while little of an answer is known."""

from __future__ import annotations

from dataclasses import replace

from .. import checks
from ..config import GuidanceConfig, SamplingConfig
from ..schedule import Step


def damped(config: SamplingConfig | None = None) -> SamplingConfig:
    r"""Settings for `generate` with $\eta (1 - s)$ in place of eta at each denoising step.

    s, the noise level after the step, is the share that is still masked then: the step size grows
    from eta / T at the first of T steps to eta at the last. Everything else is as in `config`.

    Why that way round: guidance climbs the reward of the mean of all that may still come, R(E[x]),
    where exact tilting climbs $\log E[\exp R(x)]$. For a reward that curves down, $-a x^2 / 2$, and
    a normal x of variance v, the exact gradient is smaller by $1 / (1 + a v)$: plug-in guidance
    tilts too much the more is uncertain, and is exact when nothing is. What no damping mends is
    the choice between modes. Such settings are a function of the step, so `to_json` refuses them:
    record the name and the settings that they were made from. Source: the question, arXiv
    2606.02884, for continuous models, of which a public summary was read; the factor: ours.
    """
    if config is not None:
        checks.has("config", config, "a SamplingConfig", "guided_steps")
    settings = config or SamplingConfig()

    def at(step: Step) -> GuidanceConfig:
        guidance = settings.guidance_at(step)
        left = step.t * (1 - step.fraction)
        return guidance.but(step_size=guidance.step_size * (1 - left))

    return replace(settings, guidance=at)
