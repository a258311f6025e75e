"""The registry of audit events: what each kind means, in words an administrator understands."""

KINDS: dict[str, str] = {
    "person.signed_in": "Signed in",
    "person.signed_out": "Signed out",
    "person.sign_in_failed": "A sign-in failed",
    "person.password_changed": "Changed their password",
    "person.provider_linked": "Signed in with an identity provider for the first time",
    "person.second_factor_added": "Added a second factor",
    "person.second_factor_removed": "Removed a second factor",
    "person.provider_unlinked": "Removed the link to an identity provider",
    "identity_provider.changed": "Changed an identity provider",
    "identity_provider.deleted": "Deleted an identity provider",
    "person.administrator_made": "Made the first administrator",
    "person.changed": "Changed a person's account",
    "person.deleted": "Deleted a person's account",
    "group.changed": "Changed a group",
    "group.deleted": "Deleted a group",
    "site.changed": "Changed the site's settings",
    "client.changed": "Changed an OAuth client",
    "configuration.applied": "Applied a configuration file",
}
