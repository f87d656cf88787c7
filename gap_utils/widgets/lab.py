"""What all labs share: how they are shown, live and on a static page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from html import escape
from typing import Any

import ipywidgets

from gap_utils.pictures import Picture

# ipywidgets gives the handle of a slider no accessible name: copy the visible label to it.
# JupyterLab takes keys from dropdowns for its own shortcuts: tell it to leave them alone.
# A lab's widgets reach the page one by one, some after the picture, so watch it for them.
MEND_CONTROLS = """
const watch = tries => {
  const lab = this.closest('.gap-lab');
  if (!lab && tries) setTimeout(watch, 200, tries - 1);
  if (!lab || lab.dataset.watched) return;
  lab.dataset.watched = 'yes';
  const name = () => {
    lab.querySelectorAll('.widget-slider').forEach(slider =>
      slider.querySelector('[role=slider], .ui-slider-handle')?.setAttribute(
        'aria-label', slider.querySelector('.widget-label').textContent));
    lab.querySelectorAll('select').forEach(list =>
      list.setAttribute('data-lm-suppress-shortcuts', 'true'));
  };
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


class StateLab(Lab):
    """A lab whose picture and words follow from one state, a frozen dataclass.

    A subclass makes its controls in `_build`, and `box` with them.
    In `_show` it moves the controls to the state and draws.

    Attributes:
        value: the state on view; it can be set. `lab.set(name=new)` changes single fields.
    """

    def __init__(self, state: Any):
        state = self._complete(state)
        self._check(state)
        self._start = self._state = state
        self._following = False
        self._view = ipywidgets.HTML()
        self._build()
        self._show()

    @property
    def value(self) -> Any:
        """The state on view; setting it moves the controls too."""
        return self._state

    @value.setter
    def value(self, state: Any) -> None:
        wanted = type(self._start)
        if not isinstance(state, wanted):
            raise ValueError(f"expected a {wanted.__name__}, got {type(state).__name__}")
        state = self._complete(state)
        self._check(state)
        before, self._state = self._state, state
        try:
            self._show()
        except BaseException:
            self._state = before
            self._show()
            raise

    def set(self, **changes) -> None:
        """Change single fields of the state; what is not possible raises ValueError."""
        known = [field.name for field in fields(self._state)]
        if unknown := [name for name in changes if name not in known]:
            raise ValueError(f"expected one of {', '.join(known)}, got {unknown[0]}")
        self.value = replace(self._state, **changes)

    def _start_again(self) -> None:
        self.value = self._start

    def _complete(self, state: Any) -> Any:
        """Fill in what a state leaves open."""
        return state

    def _check(self, state: Any) -> None:
        """Raise ValueError for a state that this lab cannot show."""

    def _build(self) -> None:
        raise NotImplementedError

    def _show(self) -> None:
        raise NotImplementedError

    def _on_move(self, control: ipywidgets.Widget, action: Callable[[Any], None]) -> None:
        """Call an action with the new value of a control when the learner moves it."""

        def moved(change):
            if not self._following:
                self._try(action, change["new"])

        control.observe(moved, "value")

    def _button(self, label: str, action: Callable[[], None]) -> ipywidgets.Button:
        """Make a button that is as wide as its label."""
        control = ipywidgets.Button(description=label, layout={"width": "auto"})
        control.on_click(lambda _: self._try(action))
        return control

    def _try(self, action: Callable[..., None], *given: Any) -> None:
        """Do what a control asks for; what goes wrong is said under the picture."""
        try:
            action(*given)
        except Exception as error:  # goes to a log that nobody sees
            self._show()  # the control goes back to where it was
            self._view.value += f"<br><b>{escape(f'{type(error).__name__}: {error}')}</b>"
            raise

    def _setter(self, field: str) -> Callable[[Any], None]:
        """Make the action that sets one field of the state."""
        return lambda value: self.set(**{field: value})

    def _slider(
        self, label: str, low: int, high: int, action: Callable[[int], None]
    ) -> ipywidgets.IntSlider:
        control = ipywidgets.IntSlider(
            value=low, min=low, max=high, description=label, layout={"width": "300px"}
        )
        self._on_move(control, action)
        return control

    def _dropdown(
        self, label: str, options: Sequence[str | tuple[str, Any]], action: Callable[[Any], None]
    ) -> ipywidgets.Dropdown:
        control = ipywidgets.Dropdown(options=options, description=label, layout={"width": "300px"})
        self._on_move(control, action)
        return control

    def _lay_out(self, *controls: ipywidgets.Widget) -> None:
        """Make the box: controls below each other, beside the picture."""
        left = ipywidgets.VBox(controls, layout={"width": "316px"})
        self.box = side_by_side(left, self._view)

    def _move(self, controls: Mapping[str, ipywidgets.Widget]) -> None:
        """Bring controls in line with the fields of the state that they are named after."""
        for name, control in controls.items():
            control.value = getattr(self._state, name)

    @contextmanager
    def _controls_follow(self):
        """Move controls without taking it for the learner's doing."""
        self._following = True
        try:
            yield
        finally:
            self._following = False

    def _draw(self, picture: Picture, words: str) -> None:
        """Put a picture and HTML on view: one widget, so one message and one layout."""
        self._view.value = f"{picture.html(onload=MEND_CONTROLS)}<br>{words}"


def side_by_side(left: ipywidgets.Widget, right: ipywidgets.Widget) -> ipywidgets.Box:
    """Lay controls and picture out, below each other where the page is narrow."""
    box = ipywidgets.Box([left, right], layout={"display": "flex", "flex_flow": "row wrap"})
    box.add_class("gap-lab")
    return box
