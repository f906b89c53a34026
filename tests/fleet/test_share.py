"""Weight and priority on their way from a gateway to a node."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helexa.errors import InvalidRequest
from helexa.fleet.share import MAX_WEIGHT, PRIORITIES, Share, share_headers, share_of

shares = st.builds(Share, st.integers(1, MAX_WEIGHT), st.sampled_from(PRIORITIES))


@given(shares)
def test_a_node_reads_what_a_gateway_wrote(share: Share) -> None:
    assert share_of([(b"host", b"node"), *share_headers(share)]) == share


def test_who_says_nothing_has_weight_one_and_is_interactive() -> None:
    assert share_of([(b"host", b"node")]) == Share(1, "interactive")


@pytest.mark.parametrize(
    "weight", [b"0", b"-1", b"1.5", b"", b"9999", b"1e3", b"\xb2", b"9" * 5000]
)
def test_a_weight_that_is_none_is_refused(weight: bytes) -> None:
    with pytest.raises(InvalidRequest, match="x-helexa-weight must be a whole number"):
        share_of([(b"x-helexa-weight", weight)])


@pytest.mark.parametrize("priority", [b"", b"Batch", b"urgent", b"\xff"])
def test_a_priority_that_is_none_is_refused(priority: bytes) -> None:
    with pytest.raises(InvalidRequest, match="one of interactive, batch"):
        share_of([(b"x-helexa-priority", priority)])
