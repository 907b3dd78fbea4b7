"""The base of every table of settings."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """An immutable table of settings that refuses unknown keys, and numbers that are not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
