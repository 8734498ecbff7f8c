import django.core.validators
import django.db.models.deletion
import django.utils.timezone
import relay.price_models
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('relay', '0002_profiles'),
        ('tenants', '0002_requires_second_factor'),
    ]

    operations = [
        migrations.CreateModel(
            name='CostPrice',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('starts_at', models.DateTimeField(default=django.utils.timezone.now)),
                ('input', models.BigIntegerField(default=0, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)])),
                ('cached_input', models.BigIntegerField(default=0, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)])),
                ('output', models.BigIntegerField(default=0, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)])),
                ('per_request', models.BigIntegerField(default=0, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)])),
                ('per_image', models.BigIntegerField(default=0, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)])),
                ('per_second', models.BigIntegerField(default=0, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)])),
                ('cached_input_explicit', models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)])),
                ('cache_write_5m', models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)])),
                ('cache_write_1h', models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)])),
                ('cache_write_12h', models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)])),
                ('audio_input', models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)])),
                ('audio_output', models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)])),
                ('image_input', models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)])),
                ('image_output', models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)])),
                ('reasoning', models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)])),
                ('citation', models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)])),
                ('per_search', models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)])),
                ('per_character', models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)])),
                ('per_minute', models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)])),
                ('rows', models.JSONField(blank=True, db_default=models.Value([], models.JSONField()), default=list, validators=[relay.price_models.validate_rows])),
            ],
            options={
                'verbose_name': 'cost price',
                'verbose_name_plural': 'cost prices',
                'ordering': ['upstream', 'model', '-starts_at'],
            },
        ),
        migrations.CreateModel(
            name='SpaceTerms',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('starts_at', models.DateTimeField(default=django.utils.timezone.now)),
                ('input', models.BigIntegerField(default=0, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)])),
                ('cached_input', models.BigIntegerField(default=0, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)])),
                ('output', models.BigIntegerField(default=0, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)])),
                ('per_request', models.BigIntegerField(default=0, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)])),
                ('per_image', models.BigIntegerField(default=0, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)])),
                ('per_second', models.BigIntegerField(default=0, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)])),
                ('cached_input_explicit', models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)])),
                ('cache_write_5m', models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)])),
                ('cache_write_1h', models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)])),
                ('cache_write_12h', models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)])),
                ('audio_input', models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)])),
                ('audio_output', models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)])),
                ('image_input', models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)])),
                ('image_output', models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)])),
                ('reasoning', models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)])),
                ('citation', models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)])),
                ('per_search', models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)])),
                ('per_character', models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)])),
                ('per_minute', models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)])),
                ('rows', models.JSONField(blank=True, db_default=models.Value([], models.JSONField()), default=list, validators=[relay.price_models.validate_rows])),
                ('factor_millionths', models.BigIntegerField(blank=True, null=True)),
            ],
            options={
                'verbose_name': 'terms of a space',
                'verbose_name_plural': 'terms of a space',
                'ordering': ['space', 'model', '-starts_at'],
            },
        ),
        migrations.RemoveConstraint(
            model_name='price',
            name='price_within_limits',
        ),
        migrations.AddField(
            model_name='price',
            name='audio_input',
            field=models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)]),
        ),
        migrations.AddField(
            model_name='price',
            name='audio_output',
            field=models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)]),
        ),
        migrations.AddField(
            model_name='price',
            name='cache_write_12h',
            field=models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)]),
        ),
        migrations.AddField(
            model_name='price',
            name='cache_write_1h',
            field=models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)]),
        ),
        migrations.AddField(
            model_name='price',
            name='cache_write_5m',
            field=models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)]),
        ),
        migrations.AddField(
            model_name='price',
            name='cached_input_explicit',
            field=models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)]),
        ),
        migrations.AddField(
            model_name='price',
            name='citation',
            field=models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)]),
        ),
        migrations.AddField(
            model_name='price',
            name='image_input',
            field=models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)]),
        ),
        migrations.AddField(
            model_name='price',
            name='image_output',
            field=models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)]),
        ),
        migrations.AddField(
            model_name='price',
            name='per_character',
            field=models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)]),
        ),
        migrations.AddField(
            model_name='price',
            name='per_minute',
            field=models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)]),
        ),
        migrations.AddField(
            model_name='price',
            name='per_search',
            field=models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)]),
        ),
        migrations.AddField(
            model_name='price',
            name='reasoning',
            field=models.BigIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1000000000000000)]),
        ),
        migrations.AddField(
            model_name='price',
            name='rows',
            field=models.JSONField(blank=True, db_default=models.Value([], models.JSONField()), default=list, validators=[relay.price_models.validate_rows]),
        ),
        migrations.AlterField(
            model_name='model',
            name='max_output_tokens',
            field=models.PositiveIntegerField(default=128000, validators=[django.core.validators.MinValueValidator(1), django.core.validators.MaxValueValidator(1000000000)]),
        ),
        migrations.AddConstraint(
            model_name='price',
            constraint=models.CheckConstraint(condition=models.Q(('audio_input__range', (0, 1000000000000000)), ('audio_output__range', (0, 1000000000000000)), ('cache_write_12h__range', (0, 1000000000000000)), ('cache_write_1h__range', (0, 1000000000000000)), ('cache_write_5m__range', (0, 1000000000000000)), ('cached_input__range', (0, 1000000000000000)), ('cached_input_explicit__range', (0, 1000000000000000)), ('citation__range', (0, 1000000000000000)), ('image_input__range', (0, 1000000000000000)), ('image_output__range', (0, 1000000000000000)), ('input__range', (0, 1000000000000000)), ('output__range', (0, 1000000000000000)), ('per_character__range', (0, 1000000000000000)), ('per_image__range', (0, 1000000000000000)), ('per_minute__range', (0, 1000000000000000)), ('per_request__range', (0, 1000000000000000)), ('per_search__range', (0, 1000000000000000)), ('per_second__range', (0, 1000000000000000)), ('reasoning__range', (0, 1000000000000000))), name='price_within_limits'),
        ),
        migrations.AddField(
            model_name='costprice',
            name='model',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='cost_prices', to='relay.model'),
        ),
        migrations.AddField(
            model_name='costprice',
            name='upstream',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='cost_prices', to='relay.upstream'),
        ),
        migrations.AddField(
            model_name='spaceterms',
            name='model',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='terms', to='relay.model'),
        ),
        migrations.AddField(
            model_name='spaceterms',
            name='space',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.space'),
        ),
        migrations.AddConstraint(
            model_name='costprice',
            constraint=models.UniqueConstraint(fields=('upstream', 'model', 'starts_at'), name='one_cost_price_per_moment'),
        ),
        migrations.AddConstraint(
            model_name='costprice',
            constraint=models.CheckConstraint(condition=models.Q(('audio_input__range', (0, 1000000000000000)), ('audio_output__range', (0, 1000000000000000)), ('cache_write_12h__range', (0, 1000000000000000)), ('cache_write_1h__range', (0, 1000000000000000)), ('cache_write_5m__range', (0, 1000000000000000)), ('cached_input__range', (0, 1000000000000000)), ('cached_input_explicit__range', (0, 1000000000000000)), ('citation__range', (0, 1000000000000000)), ('image_input__range', (0, 1000000000000000)), ('image_output__range', (0, 1000000000000000)), ('input__range', (0, 1000000000000000)), ('output__range', (0, 1000000000000000)), ('per_character__range', (0, 1000000000000000)), ('per_image__range', (0, 1000000000000000)), ('per_minute__range', (0, 1000000000000000)), ('per_request__range', (0, 1000000000000000)), ('per_search__range', (0, 1000000000000000)), ('per_second__range', (0, 1000000000000000)), ('reasoning__range', (0, 1000000000000000))), name='cost_price_within_limits'),
        ),
        migrations.AddConstraint(
            model_name='spaceterms',
            constraint=models.UniqueConstraint(fields=('space', 'model', 'starts_at'), name='one_terms_of_a_model_per_moment'),
        ),
        migrations.AddConstraint(
            model_name='spaceterms',
            constraint=models.UniqueConstraint(condition=models.Q(('model', None)), fields=('space', 'starts_at'), name='one_terms_of_all_models_per_moment'),
        ),
        migrations.AddConstraint(
            model_name='spaceterms',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('factor_millionths__isnull', False), ('factor_millionths__range', (0, 1000000000))), models.Q(('factor_millionths', None), ('model__isnull', False)), _connector='OR'), name='terms_are_a_factor_or_prices_of_a_model'),
        ),
        migrations.AddConstraint(
            model_name='spaceterms',
            constraint=models.CheckConstraint(condition=models.Q(('audio_input__range', (0, 1000000000000000)), ('audio_output__range', (0, 1000000000000000)), ('cache_write_12h__range', (0, 1000000000000000)), ('cache_write_1h__range', (0, 1000000000000000)), ('cache_write_5m__range', (0, 1000000000000000)), ('cached_input__range', (0, 1000000000000000)), ('cached_input_explicit__range', (0, 1000000000000000)), ('citation__range', (0, 1000000000000000)), ('image_input__range', (0, 1000000000000000)), ('image_output__range', (0, 1000000000000000)), ('input__range', (0, 1000000000000000)), ('output__range', (0, 1000000000000000)), ('per_character__range', (0, 1000000000000000)), ('per_image__range', (0, 1000000000000000)), ('per_minute__range', (0, 1000000000000000)), ('per_request__range', (0, 1000000000000000)), ('per_search__range', (0, 1000000000000000)), ('per_second__range', (0, 1000000000000000)), ('reasoning__range', (0, 1000000000000000))), name='terms_within_limits'),
        ),
    ]
