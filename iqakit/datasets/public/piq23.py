"""PIQ23, portraits taken with smartphones."""

from __future__ import annotations

from pathlib import Path

from iqakit.contracts.dataset import TaskFacts
from iqakit.datasets.public.layout import PublicSet, Row, Tree
from iqakit.datasets.readers import read_csv

# "Test split/Scene Split.csv" of the authors' repository; it does not come with the images, so it stands here.
# (Whole names: Indoor_Scene_12 and 13 are train, though their names begin like Indoor_Scene_1.)
_TEST_SCENES = frozenset(
    {f"Indoor_Scene_{n}" for n in (1, 5, 10, 11)}
    | {f"Lowlight_Scene_{n}" for n in (16, 17, 20)}
    | {f"Night_Scene_{n}" for n in (28, 30, 31)}
    | {f"Outdoor_Scene_{n}" for n in (33, 34, 43, 45, 46)}
)


def _read(tree: Tree) -> tuple[Path, list[Row]]:
    source = tree.file("Scores_Overall.csv", "Scores/Scores_Overall.csv") or tree.root
    table = read_csv(source, ["IMAGE PATH", "JOD", "JOD STD", "SCENE"])
    columns = (table.text("IMAGE PATH"), table.floats("JOD"), table.floats("JOD STD"), table.text("SCENE"))
    rows = []
    for path, score, spread, scene in zip(*columns, strict=True):
        file = path.replace("\\", "/")  # Overall\66_Indoor_Scene_0.jpg
        rows.append(Row(file, file, score, spread, scene, "test" if scene in _TEST_SCENES else "train"))
    return source, rows


PIQ23 = PublicSet(
    facts=TaskFacts(
        name="piq23",
        title="PIQ23, Portrait Image Quality (overall quality)",
        # Just-objectionable differences have no ends.
        direction="mos",
        rated="Portraits of 50 scenes by more than 100 smartphones, compared in pairs by experts; "
        "scores are just-objectionable differences within a scene, so those of two scenes do not compare",
        citation="N. Chahine, S. Calarasanu, D. Garcia-Civiero, T. Cayla, S. Ferradans, J. Ponce: An image quality "
        "assessment dataset for portraits. IEEE/CVF Conference on Computer Vision and Pattern Recognition, 2023",
        licence="non-commercial research only, under the provider's terms of use",
        homepage="https://corp.dxomark.com/data-base-piq23/",
        images=5116,
        splits="official",
    ),
    layout="Scores_Overall.csv (IMAGE PATH, JOD, JOD STD, SCENE, ...), Overall/",
    markers=(("Scores_Overall.csv", "Scores/Scores_Overall.csv"),),
    rule="the authors' scene split into train and test; one eighth of the train scenes is val",
    read=_read,
)
