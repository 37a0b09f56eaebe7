"""Executes the notebooks, checks what came out, and makes the report of it."""

import sys

# nbformat brings jsonschema, which would bring this, to check addresses that no notebook has. Its grammar takes a second.
sys.modules.setdefault("rfc3987_syntax", None)
