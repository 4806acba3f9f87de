"""ndpipe models cuts: where a model can be cut, without a Tuner."""

import json

from harness import run


def test_cuts_of_the_pretrained_model():
    cuts = json.loads(run("models", "cuts", "efficientnet-lite0", "--json").stdout)
    assert len(cuts) > 40
    total = cuts[0]["body_flops"] + cuts[0]["tail_flops"]
    assert 0.7e9 < total < 0.85e9  # 0.4 G multiplications with their additions
    for before, after in zip(cuts, cuts[1:]):
        assert before["body_flops"] + before["tail_flops"] == total
        assert before["body_flops"] <= after["body_flops"]
        assert before["tail_parameters"] >= after["tail_parameters"]
    defaults = [cut for cut in cuts if cut["default"]]
    assert [cut["shape"] for cut in defaults] == [[1280]]
    assert defaults[0]["feature_bytes"] == 2560
    assert defaults[0]["tail_parameters"] == 1000 * 1280 + 1000


def test_cuts_are_a_table_for_people():
    text = run("models", "cuts", "efficientnet-lite0").stdout
    assert text.splitlines()[0].split()[0] == "cut"
    assert "(default)" in text and "2.6 kB" in text


def test_a_model_that_is_not_there():
    done = run("models", "cuts", "no-such-model", check=False)
    assert done.returncode == 1
    assert "no-such-model" in done.stderr
