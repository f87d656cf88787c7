"""What all labs share: how they are shown, live and on a static page."""

from __future__ import annotations

import ipywidgets

from gap_utils.pictures import Picture

# ipywidgets gives the handle of a slider no accessible name: copy the visible label to it.
# A lab's widgets reach the page one by one, some after the picture, so watch it for them.
NAME_SLIDERS = """
const watch = tries => {
  const lab = this.closest('.gap-lab');
  if (!lab && tries) setTimeout(watch, 200, tries - 1);
  if (!lab || lab.dataset.watched) return;
  lab.dataset.watched = 'yes';
  const name = () => lab.querySelectorAll('.widget-slider').forEach(slider =>
    slider.querySelector('[role=slider], .ui-slider-handle')?.setAttribute(
      'aria-label', slider.querySelector('.widget-label').textContent));
  new MutationObserver(name).observe(lab, {childList: true, subtree: true});
  name();
};
watch(20);
"""


class Lab:
    """Something to display: widgets while a kernel runs, a picture and a text otherwise.

    It is no ipywidgets class itself, so it is shown the same way by ipywidgets 7 and 8.

    Attributes:
        box: the widgets.
    """

    box: ipywidgets.Box

    def picture(self) -> Picture | None:
        """Return the picture on view, for pages without a kernel; None if there is none."""
        return None

    def _repr_mimebundle_(self, include=None, exclude=None):
        picture = self.picture()
        data, metadata = picture._repr_mimebundle_() if picture else ({}, {})
        data["text/plain"] = repr(self)
        data["application/vnd.jupyter.widget-view+json"] = {
            "model_id": self.box.model_id,
            "version_major": 2,
            "version_minor": 0,
        }
        return data, metadata
