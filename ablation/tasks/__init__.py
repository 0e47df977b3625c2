"""Kinds of work behind `study.task`'s Protocol, each found by its name: today image classification. Nothing above knows their settings."""
