"""The nucleus on a GPU; without one by Triton's interpreter, as `make test-kernel` asks for it.

Which of the two is decided when Triton is imported, as other tests do where a torch for GPUs has
brought it.
"""

import os

import pytest
import torch

CUDA = torch.cuda.is_available()
if not (CUDA or "TRITON_INTERPRET" in os.environ):
    pytest.skip("no CUDA device; `make test-kernel` does without", allow_module_level=True)
pytest.importorskip("triton", reason="triton is not installed")

from test_fast import KINDS, random_rows, sorted_nucleus  # noqa: E402

from entrgi_ref.fast import nucleus_kernel  # noqa: E402

DEVICE = "cuda" if CUDA else "cpu"


def require_same(p, top_p):
    found, expected = nucleus_kernel.nucleus(p.to(DEVICE), top_p).cpu(), sorted_nucleus(p, top_p)
    assert torch.equal(found > 0, expected > 0)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("top_p", [1e-6, 0.5, 0.95, 1 - 2**-20])
def test_the_set_is_that_of_a_sort_to_the_last_token(kind, top_p):
    for rows, width in ((1, 700), (2, 1024), (1, 2500)):
        require_same(random_rows(kind, rows, width, width), top_p)


def test_among_equals_the_lower_id_comes_first_across_parts():
    """Equal tokens far apart; the nucleus ends between two of them."""
    p = torch.full((1, 4000), 1e-7)
    p[0, [5, 1030, 2050, 3999]] = 0.2
    for kept, top_p in enumerate((0.1, 0.25, 0.45, 0.65)):
        found = nucleus_kernel.nucleus(p.to(DEVICE), top_p).cpu()
        assert found.nonzero()[:, 1].tolist() == [5, 1030, 2050, 3999][: kept + 1]
        assert float(found.sum()) == pytest.approx(1)


def test_rows_in_another_order_of_memory():
    p = random_rows("spread", 6, 2000, 0)
    strided = p[::2].T.contiguous().T
    require_same(strided, 0.9)


def test_no_rows_are_no_error():
    assert nucleus_kernel.nucleus(torch.ones(0, 2000, device=DEVICE), 0.9).shape == (0, 2000)


def test_what_is_no_number_stays_none():
    p = random_rows("spread", 2, 2000, 0)
    p[1, 7] = torch.nan
    found = nucleus_kernel.nucleus(p.to(DEVICE), 0.9).cpu()
    assert not found[0].isnan().any()
    assert found[1].isnan().any()


@pytest.mark.gpu
@pytest.mark.skipif(not CUDA, reason="no CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_a_real_vocabulary_on_a_gpu(kind):
    from entrgi_ref import nucleus
    from entrgi_ref.fast import nucleus as fast

    p = random_rows(kind, 64, 152_064, 0)
    assert fast.applies(p.to(DEVICE))
    found, expected = nucleus(p.to(DEVICE), 0.95).cpu(), sorted_nucleus(p, 0.95)
    assert torch.equal(found > 0, expected > 0)
