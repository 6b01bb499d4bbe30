"""Who publishes: the token, the user and the name that a repository may have."""

from typing import Any

from hub_export.client import LOGIN, Conversation


def repository_id(hub: Conversation, repo: str) -> str:
    """The full id of a repository, once the token may write there.

    Args:
        hub: the conversation with the Hub.
        repo: `user/name`, or `name` for a repository of the token's own user.

    Raises:
        ValueError: a name the Hub does not allow; no token, a wrong or a read-only one; somebody else's name.
    """
    from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ValueError(
            f"--repo: expected `name` or `user/name` as the Hub allows it, got {repo!r}: {error}"
        ) from error
    try:
        account = hub.call("asking the Hub who you are", hub.api.whoami)
    except LocalTokenNotFoundError as error:
        raise ValueError(
            f"expected an access token of the Hugging Face Hub, but there is none. {LOGIN}. {hub.standing}"
        ) from error
    user = str(account["name"])
    if not _may_write(account.get("auth", {}).get("accessToken", {})):
        raise ValueError(
            f"expected a token with the right to write, got a read-only one of {user}. {LOGIN}. {hub.standing}"
        )
    if "/" not in repo:
        return f"{user}/{repo}"
    namespaces = [user, *(str(organisation["name"]) for organisation in account.get("orgs", []))]
    if repo.split("/")[0] not in namespaces:
        raise ValueError(
            f"--repo: expected a name under {' or '.join(namespaces)}, which this token belongs to, got {repo!r}. "
            f"Log in as that user, or choose another name. {hub.standing}"
        )
    return repo


def _may_write(token: dict[str, Any]) -> bool:
    """Whether a token may write somewhere; of a fine-grained one the Hub tells which rights it has on what."""
    if token.get("role") == "fineGrained":
        rights = token.get("fineGrained", {})
        granted = [
            *rights.get("global", []),
            *(right for scope in rights.get("scoped", []) for right in scope.get("permissions", [])),
        ]
        return "repo.write" in granted
    return token.get("role") != "read"
