"""What every document is made of: sections of Markdown, of which the details may be folded away."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Section:
    """A part of the report: its title, its text in Markdown (tables too), and further parts that a reader opens if need be."""

    title: str
    body: str = ""
    details: tuple["Section", ...] = ()
