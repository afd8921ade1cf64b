"""Schema languages a contract is told in, and read from: one file each, with the same two functions.

`write(name, columns, losses)` gives the text of one schema object; `read(text, losses)` gives schema
objects back. What a language cannot say is told in `losses`, never dropped in silence. The law of all:
without losses, reading what was written gives the same columns; with losses, a second trip changes nothing.
"""

from boucle.product.formats.table import FORMATS, Format, Told, export, import_text

__all__ = ["FORMATS", "Format", "Told", "export", "import_text"]
