import pytest

from interp_unlearn.errors import SiteError
from interp_unlearn.sites import BLOCK_COMPONENTS, Site


@pytest.mark.parametrize("text", ["embed", "logits", "0.resid_pre", "31.attn_out", "5.resid_post"])
def test_text_round_trip(text: str) -> None:
    assert str(Site.parse(text)) == text


def test_constants_are_what_parse_reads() -> None:
    assert Site.parse("embed") == Site.embed
    assert Site.parse("5.mlp_out") == Site(5, "mlp_out")
    assert len({Site(5, "mlp_out"), Site.parse("5.mlp_out"), Site.logits}) == 2


def test_sites_sort_by_depth_not_by_name() -> None:
    expected = [Site.embed, *(Site(layer, c) for layer in (0, 2, 10) for c in BLOCK_COMPONENTS), Site.logits]
    shuffled = expected[::2] + expected[1::2][::-1]
    assert sorted(shuffled) == expected != shuffled
    assert max(expected) == Site.logits and Site(1, "resid_post") < Site(2, "resid_pre")


@pytest.mark.parametrize("text", ["", "resid_post", "5", "5.nowhere", "-1.resid_post", "a.resid_post", "5.embed"])
def test_unreadable_text_is_refused(text: str) -> None:
    with pytest.raises(SiteError):
        Site.parse(text)


@pytest.mark.parametrize(
    ("layer", "component"), [(None, "resid_post"), (-1, "attn_out"), (0, "logits"), (0, "residual")]
)
def test_impossible_sites_are_refused(layer: int | None, component: str) -> None:
    with pytest.raises(SiteError):
        Site(layer, component)


def test_layer_out_of_range_names_the_range() -> None:
    with pytest.raises(SiteError, match="layers 0 to 2"):
        Site(3, "resid_post").check(3)
    Site(2, "resid_post").check(3)
    Site.logits.check(3)
