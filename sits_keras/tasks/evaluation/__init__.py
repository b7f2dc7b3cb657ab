"""All experiments of the paper for one model and one folder of data, with a report (section 4)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["cards", "context", "report", "runner", "tables"],
    submod_attrs={
        "context": ["QUICK", "EvaluatedModel", "EvaluationConfig"],
        "runner": ["EXPERIMENTS", "evaluate"],
    },
)
