"""Old names of tables, keys and methods in config files, and old defaults in run folders, which keep working."""

from typing import Any

from eorinfer.settings.imageflow import GONE

#: New names of tables.
TABLES = {"field": "image_flow"}
#: New names of keys, by table.
KEYS = {"validation": {"field_truths": "image_flow_truths"}, "contest": {"field_truths": "image_flow_truths"}}
#: New names of methods, and the keys by table that name methods.
METHODS = {"field-flow": "image-flow"}
METHOD_KEYS = {"inference": ("method",), "contest": ("methods", "reference", "baseline")}


def with_new_names(content: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Rename what has a new name in the content of a config; say so in one line for each.

    Raises
    ------
    ValueError
        If a table or a key is there under both names.
    """
    lines: list[str] = []
    renamed = _renamed(content, TABLES, "[{}]", lines)
    for table, names in KEYS.items():
        if isinstance(keys := renamed.get(table), dict):
            renamed[table] = _renamed(keys, names, f"[{table}] {{}}", lines)
    for table, keys_of_methods in METHOD_KEYS.items():
        if isinstance(keys := renamed.get(table), dict):
            methods = {key: _new_methods(keys[key]) for key in keys_of_methods if key in keys}
            lines += [
                f'[{table}] {key}: "{old}" is now called "{new}"; the old name still works'
                for old, new in METHODS.items()
                for key, value in methods.items()
                if value != keys[key]
            ]
            renamed[table] = keys | methods
    if isinstance(flow := renamed.get("image_flow"), dict):
        if flow.get("discriminative_steps"):
            lines.append("[image_flow] discriminative_steps: there is no such stage any more; the key is ignored")
        renamed["image_flow"] = {key: value for key, value in flow.items() if key not in GONE}
    return renamed, lines


def with_old_defaults(content: dict[str, Any]) -> dict[str, Any]:
    """Fill in what older versions left out of the config of a run folder: the only table of SEFD of their time."""
    survey = content.get("survey")
    if isinstance(survey, dict) and survey.get("kind") == "ska-low":
        return content | {"survey": {"sefd": "818"} | survey}
    return content


def _renamed(content: dict[str, Any], names: dict[str, str], pattern: str, lines: list[str]) -> dict[str, Any]:
    """Rename keys, in their places; add a line for each."""
    for old, new in names.items():
        if old in content:
            if new in content:
                raise ValueError(f"{pattern.format(old)} is the old name of {pattern.format(new)}: give one of the two")
            lines.append(f"{pattern.format(old)} is now called {pattern.format(new)}; the old name still works")
    return {names.get(key, key): value for key, value in content.items()}


def _new_methods(value: Any) -> Any:
    """Rename a method, or each of a list; anything else is left to the check of the table."""
    if isinstance(value, list):
        return [_new_methods(name) for name in value]
    return METHODS.get(value, value) if isinstance(value, str) else value
