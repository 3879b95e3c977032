"""Why programs disagree: (operator with domain and first opset, program, verdict) to who is right, and why. Read by ops.py."""

REASONS = {}
