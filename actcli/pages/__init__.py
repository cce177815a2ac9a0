"""Pages: one HTML file each that needs nothing else. Templates, charts and film strips that all pages share."""

from actcli.pages import charts
from actcli.pages.page import render_page
from actcli.pages.strips import MAX_PICTURES, FilmStrip, contact_sheet, film_strip

__all__ = ["MAX_PICTURES", "FilmStrip", "charts", "contact_sheet", "film_strip", "render_page"]
