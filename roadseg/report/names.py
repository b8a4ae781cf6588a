"""Names that people know for networks, tricks and arms."""

from roadseg.config.recipe import DEFAULTS
from roadseg.config.study import Study
from roadseg.report.charts import network_styles


def network_title(study: Study, network: str) -> str:
    """Return the title of a network, by what `models.build` takes; its architecture if it has none.

    What a recipe changes about its layers is added: 'baseline + batch norm'.
    """
    plain, *extras = network.split("+")
    entry = next((each for each in study.networks.values() if each.network == plain), None)
    title = (entry.title or entry.name) if entry else plain
    return " + ".join([title, *(extra.replace("_", " ") for extra in extras)])


def trick_title(study: Study, trick: str) -> str:
    """Return the title of a trick; in a length question it ends with ' at N steps'."""
    name, at, steps = trick.partition(" at ")
    entry = study.tricks.get(name)
    return ((entry.title if entry else "") or name.replace("-", " ")) + at + steps


def trick_label(study: Study, trick: str) -> str:
    """Return the title of a trick, and how many times the steps of the base it trains."""
    entry, title = study.tricks.get(trick), trick_title(study, trick)
    if not entry or "steps" not in entry.hyperparameters:
        return title
    return f"{title} ({times_steps(study, entry.hyperparameters['steps'])} × the steps)"


def times_steps(study: Study, steps: int) -> str:
    """Return how many times the steps of the study's base some steps are: '12.5'."""
    return f"{steps / study.content['base'].get('steps', DEFAULTS['steps']):.3g}"


def tricks_of(study: Study, arm: str) -> list[str]:
    """Return the tricks that an arm's recipe has, of those that the settings list.

    One that sets nothing but what others of them set is those others under another name.
    """
    recipe = study.arms[arm]

    def has(settings: dict) -> bool:
        values = {name: getattr(recipe, name) for name in settings}
        given = {k: tuple(map(float, v)) if isinstance(v, list) else v for k, v in settings.items()}
        return values == given

    held = [trick for trick in study.tricks.values() if has(trick.hyperparameters)]
    return [
        trick.name
        for trick in held
        if not all(
            any(
                name in other.hyperparameters
                for other in held
                if len(other.hyperparameters) < len(trick.hyperparameters)
            )
            for name in trick.hyperparameters
        )
    ]


def arm_styles(study: Study, arms: dict[str, str]) -> dict[str, dict]:
    """Return colour and marker of arms by their titles: those of their network on the whole page.

    `arms` maps a title to an arm. The marker of a second arm of a network is hollow.
    """
    networks = network_styles(recipe.architecture for recipe in study.arms.values())
    styles, seen = {}, set()
    for title, arm in arms.items():
        network = study.arms[arm].architecture
        hollow = {"markerfacecolor": "white"} if network in seen else {}
        styles[title] = networks[network] | hollow
        seen.add(network)
    return styles


def arm_titles(study: Study) -> dict[str, str]:
    """Return each arm's title: its network, and its tricks; no two arms share one.

    'FCN-8s', 'FCN-8s + ImageNet weights', 'FCN-8s, 5 tricks'; of arms that would share a title all
    but the first have their steps too, or their name in brackets.
    """
    titles, taken = {}, set()
    for arm, recipe in study.arms.items():
        tricks = [trick_title(study, trick) for trick in tricks_of(study, arm)]
        tricks = [t for t in tricks if t not in recipe.architecture.replace("_", " ")]
        title = network_title(study, recipe.architecture)
        if tricks:
            title += f" + {tricks[0]}" if len(tricks) == 1 else f", {len(tricks)} tricks"
        if title in taken:
            title += f", {recipe.steps} steps"
        if title in taken:
            title += f" ({arm})"
        taken.add(title)
        titles[arm] = title
    return titles
