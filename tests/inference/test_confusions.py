import numpy as np
import pytest

from dst_cbc.inference.confusions import Confusions, read_confusions, write_confusions
from dst_cbc.runtime.errors import DataError

FOUND = {
    ("best", "val"): Confusions(["b", "a/1"], np.array([[[3, 1], [0, 2]], [[0, 0], [0, 0]]])),
    ("last", "val"): Confusions(["b"], np.array([[[0, 0], [7, 2**40]]])),
}


def test_a_row_is_an_entry_above_0_and_an_image_without_pixels_has_one_row(tmp_path):
    write_confusions(tmp_path / "c.csv", FOUND)
    assert (tmp_path / "c.csv").read_text().splitlines() == [
        "checkpoint,subset,id,truth,predicted,pixels",
        "best,val,b,0,0,3",
        "best,val,b,0,1,1",
        "best,val,b,1,1,2",
        "best,val,a/1,0,0,0",
        "last,val,b,1,0,7",
        "last,val,b,1,1,1099511627776",
    ]


def test_what_was_written_is_read_in_the_same_order(tmp_path):
    write_confusions(tmp_path / "c.csv", FOUND)
    read = read_confusions(tmp_path / "c.csv", 2)
    assert {*read} == {*FOUND}
    for key, found in FOUND.items():
        assert read[key].ids == found.ids
        np.testing.assert_array_equal(read[key].matrices, found.matrices)
        assert read[key].matrices.dtype == np.int64


@pytest.mark.parametrize(
    "row, said",
    [
        ("best,val,a,2,0,1", "truth: found 2, expected a class number below 2"),
        ("best,val,a,0,5,1", "predicted: found 5"),
        ("best,val,../a,0,0,1", "'../a'"),
        ("best,val,a,0,0,-1", "column 'pixels'"),
    ],
)
def test_a_row_that_no_evaluation_writes_is_refused(row, said, tmp_path):
    (tmp_path / "c.csv").write_text(f"checkpoint,subset,id,truth,predicted,pixels\n{row}\n")
    with pytest.raises(DataError, match=r"c[.]csv") as refusal:
        read_confusions(tmp_path / "c.csv", 2)
    assert said in str(refusal.value)
