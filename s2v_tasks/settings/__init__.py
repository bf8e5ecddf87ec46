"""Settings: the parameters of a run (`parameters`, `thresholds`, `advanced`) and of its `environment`.

`fields` declares a parameter once, for the forms, the command and the docs; `moved` reads former names.
"""

from s2v_tasks.settings.advanced import Advanced, Runner
from s2v_tasks.settings.environment import DASHSCOPE_BASE_URL, Credentials, DashScope, Environment, Service
from s2v_tasks.settings.fields import RUN_ID
from s2v_tasks.settings.parameters import (
    GROUPS,
    PREFECT_TAG,
    AdvancedSwitch,
    Budget,
    Candidates,
    CurateParameters,
    EstimateParameters,
    MovedOutput,
    MovedRunId,
    OnLostResponse,
    Out,
    Output,
    Screening,
    ScreeningGroup,
    Source,
    SourceGroup,
    Spending,
    SpendingGroup,
    ThresholdsGroup,
)
from s2v_tasks.settings.thresholds import Thresholds

__all__ = [
    "DASHSCOPE_BASE_URL",
    "GROUPS",
    "PREFECT_TAG",
    "RUN_ID",
    "Advanced",
    "AdvancedSwitch",
    "Budget",
    "Candidates",
    "Credentials",
    "CurateParameters",
    "DashScope",
    "Environment",
    "EstimateParameters",
    "MovedOutput",
    "MovedRunId",
    "OnLostResponse",
    "Out",
    "Output",
    "Runner",
    "Screening",
    "ScreeningGroup",
    "Service",
    "Source",
    "SourceGroup",
    "Spending",
    "SpendingGroup",
    "Thresholds",
    "ThresholdsGroup",
]
