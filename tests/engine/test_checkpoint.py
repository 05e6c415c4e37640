import pytest
import torch

from zss_d2.engine.checkpoint import ZeroShotCheckpointer
from zss_d2.errors import ZssError


def net(width: int = 3) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(2, width), torch.nn.Linear(width, 1))


def saved(tmp_path, model) -> str:
    ZeroShotCheckpointer(model, str(tmp_path)).save("weights", iteration=7)
    return str(tmp_path / "weights.pth")


def test_round_trip_with_extra_data_and_tag(tmp_path):
    model, other = net(), net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.5)
    checkpointer = ZeroShotCheckpointer(model, str(tmp_path), optimizer=optimizer)
    checkpointer.save("weights", iteration=7)
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "weights.pth")
    restored = torch.optim.AdamW(other.parameters(), lr=0.1)
    extra = ZeroShotCheckpointer(other, optimizer=restored).load(str(tmp_path / "weights.pth"))
    assert extra["iteration"] == 7
    assert restored.param_groups[0]["lr"] == 0.5
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True)
    )


def test_an_interrupted_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = saved(tmp_path, net())
    before = (tmp_path / "weights.pth").read_bytes()

    def half_a_file(data, target):
        target.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half_a_file)
    with pytest.raises(KeyboardInterrupt):
        saved(tmp_path, net())
    monkeypatch.undo()
    assert (tmp_path / "weights.pth").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last_checkpoint", "weights.pth"]
    ZeroShotCheckpointer(net()).load(path)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (net(width=4), r"3 weights with other shapes, such as 0.weight is \(3, 2\) instead of"),
        (torch.nn.Sequential(*net(), torch.nn.Linear(1, 1)), "2 weights with missing, such as 2.w"),
        (torch.nn.Sequential(torch.nn.Linear(2, 3)), "2 weights with unknown, such as 1.weight"),
    ],
)
def test_other_models_are_refused(tmp_path, model, message):
    path = saved(tmp_path, net())
    with pytest.raises(ZssError, match=f"{path} belongs to another model.*{message}"):
        ZeroShotCheckpointer(model).load(path)


def test_a_pointer_is_called_what_it_is(tmp_path):
    path = tmp_path / "pointer.pth"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    with pytest.raises(ZssError, match="pointer.pth cannot be read .* a Git LFS pointer; fetch"):
        ZeroShotCheckpointer(net()).load(str(path))


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(ZssError, match="none.pth does not exist"):
        ZeroShotCheckpointer(net()).load(str(tmp_path / "none.pth"))
    for content in (b"", b"no checkpoint at all"):
        (tmp_path / "bad.pth").write_bytes(content)
        with pytest.raises(ZssError, match="bad.pth cannot be read"):
            ZeroShotCheckpointer(net()).load(str(tmp_path / "bad.pth"))
