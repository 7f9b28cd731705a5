"""What Hydra says, as a user can read it."""


def sentence(error: Exception, command: str) -> str:
    """Put Hydra's first lines into one sentence, with where `command` helps."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    useful = [line for line in lines if not line.startswith(("full_key:", "object_type=", "reference_type="))]
    says = " ".join(useful)[:400]
    if "'privacy." in says:  # Hydra would have the user append it, and then nothing would be private
        return f"{says.split('. ')[0]}: privacy=none has no settings; give privacy=dp_sgd as well"
    return f"{says}; see {command} --help"
