"""`report --html`: one page to browse results in, without a network: scores, costs, figures and every item of a run."""

from harness.report_html.page import write_page

__all__ = ["write_page"]
