"""What is offered, to whom: Virtual MCP servers, their upstreams, pinned names, the call log."""

from django.contrib.auth.models import Group
from django.core.validators import RegexValidator
from django.db import models

from upstreams.models import Upstream

SLUG = RegexValidator(
    r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$",
    "Use 1 to 63 lower-case letters, digits and hyphens.",
)


class VirtualMcp(models.Model):
    """One URL, ``/v1/mcp/{slug}``: a choice of upstreams, tools and people."""

    class Audience(models.TextChoices):
        GROUPS = "groups", "Only the groups chosen below"
        EVERYONE = "everyone", "Everyone who can sign in"

    class NewDefinitions(models.TextChoices):
        TRUST = "trust", "Offer them at once (trust on first use)"
        HOLD = "hold", "Hold them back until an administrator approves them"

    class ChangedDefinitions(models.TextChoices):
        ALERT = "alert", "Go on offering them, and raise an alert"
        HOLD = "hold", "Hold them back until an administrator approves them"

    class AppDomains(models.TextChoices):
        DROP = "drop", "Leave them out: each host gives an app a place of its own choice"
        RECOMPUTE = "recompute", "Make them anew for this server's address (Claude)"

    class ArgumentUris(models.TextChoices):
        KEEP = "keep", "Pass them on as they come"
        UNDO = "undo", "Give the upstream its own address back"

    class Naming(models.TextChoices):
        BARE = "bare", "As their upstream calls them; its key goes before a name that is taken"
        PREFIXED = "prefixed", "Always with their upstream's key in front"

    class AskAgain(models.TextChoices):
        NEVER = "never", "Never: what they agreed to holds until somebody ends it"
        GROWN = "grown", "When it reaches more: an upstream more, another client name or host"
        TOOLS = "tools", "Also when a tool is new, or its definition has changed"

    slug = models.CharField(max_length=63, unique=True, validators=[SLUG])
    title = models.CharField(max_length=100)
    description = models.TextField(blank=True)
    instructions = models.TextField(blank=True)
    enabled = models.BooleanField(default=True)
    audience = models.CharField(max_length=8, choices=Audience, default=Audience.GROUPS)
    groups = models.ManyToManyField(Group, blank=True, related_name="virtual_mcps")
    new_definitions = models.CharField(
        "new tools", max_length=8, choices=NewDefinitions, default=NewDefinitions.TRUST
    )
    changed_definitions = models.CharField(
        "changed tools", max_length=8, choices=ChangedDefinitions, default=ChangedDefinitions.ALERT
    )
    step_up = models.BooleanField(
        "ask separately before tools that change something",
        default=False,
        help_text="Clients may at first only use tools that read; for the others they have to ask "
        "the person again (scope mcp:tools.write).",
    )
    ask_again = models.CharField(
        "ask people again",
        max_length=8,
        choices=AskAgain,
        default=AskAgain.GROWN,
        help_text="At the client's next token refresh, within an hour.",
    )
    naming = models.CharField(
        "names of tools and prompts",
        max_length=8,
        choices=Naming,
        default=Naming.BARE,
        help_text="Behind an address with several upstreams, for names seen from now on: one that "
        "clients were given stays.",
    )
    app_domains = models.CharField(
        "domains of MCP Apps",
        max_length=9,
        choices=AppDomains,
        default=AppDomains.DROP,
        help_text="An upstream that names the domain its app runs under (_meta.ui.domain) means "
        "its own address, which hosts refuse behind another. Only apps that call services which "
        "list that domain need it made anew.",
    )
    argument_uris = models.CharField(
        "addresses of resources in arguments",
        max_length=4,
        choices=ArgumentUris,
        default=ArgumentUris.KEEP,
        help_text="Behind an address with several upstreams, clients know a resource as "
        "notes+file:///a where the upstream calls it file:///a, and a model may pass it to a tool "
        "as it knows it. Only an argument that is such an address of the called upstream, and "
        "nothing else, is changed.",
    )
    upstreams = models.ManyToManyField(Upstream, through="UpstreamChoice")
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name = "Virtual MCP server"
        ordering = ["title"]

    def __str__(self) -> str:
        return self.title


class UpstreamChoice(models.Model):
    """One upstream of a Virtual MCP: its place, whether it must be connected, which tools show."""

    class ToolMode(models.TextChoices):
        ALL = "all", "All tools"
        CHOSEN = "chosen", "Only the chosen tools"

    virtual_mcp = models.ForeignKey(VirtualMcp, on_delete=models.CASCADE, related_name="choices")
    upstream = models.ForeignKey(Upstream, on_delete=models.PROTECT, related_name="choices")
    position = models.PositiveIntegerField(default=0)
    required = models.BooleanField(default=True)
    tool_mode = models.CharField(max_length=8, choices=ToolMode, default=ToolMode.ALL)
    # Names as the upstream gives them.
    chosen_tools = models.JSONField(default=list, blank=True)
    # The administrator's word where ``step_up`` is on, against what the upstream says of them.
    read_tools = models.JSONField(default=list, blank=True)
    write_tools = models.JSONField(default=list, blank=True)
    # Tools of which the administrator says that running them twice does no harm.
    rerun_tools = models.JSONField(default=list, blank=True)
    # Only with several upstreams behind the URL; a single one may ask whatever the client offers.
    may_sample = models.BooleanField("may use the client's model", default=False)
    may_list_roots = models.BooleanField("may see the client's folders", default=False)

    class Meta:
        ordering = ["position", "pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["virtual_mcp", "upstream"], name="an_upstream_once_per_virtual_mcp"
            )
        ]

    def __str__(self) -> str:
        return f"{self.upstream} in {self.virtual_mcp}"


class AccessRule(models.Model):
    """Narrows who may use an upstream of a Virtual MCP, or some of its tools, to groups.

    What no rule names is open to whoever may use the Virtual MCP. What rules do name is open to
    the groups of any of them; a rule without groups opens it to nobody. A rule for the whole
    upstream and one for a tool both have to let a person in.
    """

    virtual_mcp = models.ForeignKey(VirtualMcp, on_delete=models.CASCADE, related_name="rules")
    upstream = models.ForeignKey(Upstream, on_delete=models.CASCADE, related_name="+")
    # Names as the upstream gives them; none for the whole upstream.
    tools = models.JSONField(default=list, blank=True)
    groups = models.ManyToManyField(Group, blank=True, related_name="+")

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return f"{', '.join(self.tools) or 'everything'} of {self.upstream} in {self.virtual_mcp}"


class PublicName(models.Model):
    """The name a tool or prompt carries in public, pinned at first sight (protocol.md 3.2).

    A ``former`` one is a name that it carried before an administrator gave it another: it still
    leads there, so that clients with lists from before go on working, and nothing else gets it.
    """

    class Kind(models.TextChoices):
        TOOL = "tool", "Tool"
        PROMPT = "prompt", "Prompt"

    virtual_mcp = models.ForeignKey(
        VirtualMcp,
        on_delete=models.CASCADE,
        related_name="names",
        verbose_name="Virtual MCP server",
    )
    upstream = models.ForeignKey(Upstream, on_delete=models.CASCADE, related_name="+")
    kind = models.CharField(max_length=8, choices=Kind)
    upstream_name = models.CharField("name at the upstream", max_length=256)
    public_name = models.CharField(max_length=128)
    # Processes of the release before, which still serve while tables are updated, write rows too.
    former = models.BooleanField(default=False, db_default=False, editable=False)
    # An administrator chose it; such names are part of the configuration.
    set_by_hand = models.BooleanField(default=False, db_default=False, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["virtual_mcp", "kind", "public_name"], name="public_name_is_unique"
            ),
            models.UniqueConstraint(
                fields=["virtual_mcp", "upstream", "kind", "upstream_name"],
                condition=models.Q(former=False),
                name="one_public_name_per_upstream_name",
            ),
        ]

    def __str__(self) -> str:
        return self.public_name


class ToolDefinition(models.Model):
    """What an upstream told of a tool, a prompt or itself, and whether that may be passed on.

    One row for each wording seen (protocol.md 3.2.6). An earlier wording that was approved stays
    so: upstreams may word things differently for different people.
    """

    class Subject(models.TextChoices):
        TOOL = "tool", "Tool"
        PROMPT = "prompt", "Prompt"
        INSTRUCTIONS = "instructions", "Instructions of the server"

    class State(models.TextChoices):
        WAITING = "waiting", "Waiting for review"
        APPROVED = "approved", "Approved"
        REJECTED = "rejected", "Rejected"

    virtual_mcp = models.ForeignKey(
        VirtualMcp, on_delete=models.CASCADE, related_name="definitions"
    )
    upstream = models.ForeignKey(Upstream, on_delete=models.CASCADE, related_name="+")
    subject = models.CharField(max_length=12, choices=Subject)
    # As the upstream gives it; empty for instructions.
    name = models.CharField(max_length=256, blank=True)
    digest = models.CharField(max_length=32)
    # Sorted JSON of what is told; empty where it was too long to keep.
    content = models.TextField(blank=True)
    # The annotation ``readOnlyHint``, as the upstream says it.
    read_only = models.BooleanField(default=False, editable=False)
    state = models.CharField(max_length=8, choices=State)
    seen_at = models.DateTimeField(auto_now_add=True)
    decided_at = models.DateTimeField(null=True)
    decided_by = models.CharField(max_length=200, blank=True)

    class Meta:
        verbose_name = "tool definition"
        ordering = ["-seen_at", "-pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["virtual_mcp", "upstream", "subject", "name", "digest"],
                name="each_definition_once",
            )
        ]
        indexes = [models.Index(fields=["state"], name="definition_state")]

    def __str__(self) -> str:
        return self.name or f"Instructions of {self.upstream}"


class EndedSession(models.Model):
    """A stateful session that its client deleted; kept until its seal would have expired."""

    digest = models.CharField(max_length=64, unique=True)
    expires_at = models.DateTimeField(db_index=True)


class NodeMail(models.Model):
    """A message to another process, waiting to be fetched (``routing/node_mail.py``)."""

    address = models.CharField(max_length=100, db_index=True)
    # Sealed by the vault, with the address.
    body = models.TextField()
    expires_at = models.DateTimeField(db_index=True)


class SharedNote(models.Model):
    """A short-lived fact that all processes share (``routing/shared_notes.py``)."""

    key = models.CharField(max_length=150, unique=True)
    # Sealed by the vault, with the key; the name of the holder in a lease.
    value = models.TextField()
    expires_at = models.DateTimeField(db_index=True)


class SessionSubscription(models.Model):
    """A resource that a stateful session wants to be told of; kept as long as the session."""

    session_digest = models.CharField(max_length=64)
    uri = models.TextField()
    uri_digest = models.CharField(max_length=64)
    expires_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["session_digest", "uri_digest"], name="a_resource_once_per_session"
            )
        ]


class SamplingUse(models.Model):
    """What an upstream has asked of one person's model in a minute or a day
    (``sampling_limits.py``)."""

    user_id = models.BigIntegerField()
    upstream_id = models.BigIntegerField()
    # "minute:" or "day:" and its number since 1970.
    window = models.CharField(max_length=24)
    # Questions in a minute, tokens in a day.
    amount = models.BigIntegerField()
    expires_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["user_id", "upstream_id", "window"], name="sampling_is_counted_once"
            )
        ]


class CallRecord(models.Model):
    """One relayed call, without arguments or results."""

    at = models.DateTimeField(db_index=True)
    virtual_mcp = models.CharField(max_length=63, db_index=True)
    upstream = models.CharField(max_length=31, blank=True)
    method = models.CharField(max_length=64)
    name = models.CharField(max_length=256, blank=True)
    user_id = models.BigIntegerField(null=True)
    client_id = models.CharField(max_length=500, blank=True)
    outcome = models.CharField(max_length=24)
    duration_ms = models.FloatField()

    class Meta:
        ordering = ["-at"]
