package policy

import (
	"maps"

	"go.yaml.in/yaml/v3"
)

// keepAll is how the retention is written that keeps every point, and a backfill without a limit.
const keepAll = "all"

// allOr is a kind of retentions: rules, or the word for none.
func allOr(rules kind[Retention]) kind[Retention] {
	return kind[Retention]{
		read: func(r *reader, n *yaml.Node) (Retention, bool) {
			resolved := r.resolve(n)
			if resolved == nil {
				return Retention{}, false
			}
			if resolved.Kind == yaml.ScalarNode {
				if resolved.Value != keepAll {
					r.wrong(resolved, "retention is rules, such as {days: 14}, or all, which keeps every point", "rules are expected here, not %s", kindOf(resolved))
				}
				return Retention{}, resolved.Value == keepAll
			}
			retention, ok := rules.read(r, resolved)
			if !ok {
				return Retention{}, false
			}
			if err := retention.Check(); err != nil {
				r.wrong(resolved, "", "%s", err)
				return Retention{}, false
			}
			if retention.Empty() {
				r.wrong(resolved, "retention: all keeps every point", "there is no rule, so nothing would be kept")
				return Retention{}, false
			}
			return retention, true
		},
		write: func(w printer, value, given Retention) *yaml.Node {
			if value.Empty() {
				return scalar("!!str", keepAll)
			}
			return rules.write(w, value, given)
		},
		schema: func(defaults Retention) schema {
			form := rules.schema(defaults)
			form["minProperties"] = 1
			return schema{"anyOf": []schema{{"const": keepAll}, form}}
		},
		keys: rules.keys,
	}
}

// numberOrAll writes numbers as such.
func numberOrAll(of kind[Backfill]) kind[Backfill] {
	of.write = func(_ printer, value, _ Backfill) *yaml.Node {
		if value == BackfillAll {
			return scalar("!!str", keepAll)
		}
		return scalar("!!int", value.String())
	}
	return of
}

// orNothing also takes {}, which is the zero value.
func orNothing[T any](of kind[T]) kind[T] {
	inner := of
	of.read = func(r *reader, n *yaml.Node) (T, bool) {
		resolved := r.resolve(n)
		if resolved == nil || resolved.Kind == yaml.MappingNode && len(resolved.Content) == 0 {
			var none T
			return none, resolved != nil
		}
		return inner.read(r, resolved)
	}
	of.schema = func(defaults T) schema {
		return schema{"anyOf": []schema{{"type": "object", "maxProperties": 0}, maps.Clone(inner.schema(defaults))}}
	}
	return of
}
