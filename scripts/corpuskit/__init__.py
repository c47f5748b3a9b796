"""The corpus's harness: cases, their images, probes and traces, the report. Standard library only."""
