from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("gateway_site", "0006_provided_role"),
    ]

    operations = [
        migrations.AddField(
            model_name="identitygrant",
            name="answer_lost",
            field=models.BooleanField(db_default=False, default=False),
        ),
        migrations.AddField(
            model_name="identitygrant",
            name="sign_in_asked",
            field=models.BooleanField(db_default=False, default=False),
        ),
    ]
