"""What may stand in files that people write: one declaration a key, checked by pydantic.

A table is a `Table` (pydantic), a key one line in it: type with its bounds, default, description.
From that line come the check, the errors (`reading`), the JSON Schema for editors (`json_schema`)
and the reference page (`reference`).
"""
