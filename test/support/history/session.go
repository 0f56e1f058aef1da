package main

import (
	"slices"

	"github.com/anishathalye/porcupine"
)

// A session is alive until it is revoked, and never again.
var sessionModel = porcupine.Model{
	Init: func() any { return true },
	Step: func(state, input, _ any) (bool, any) {
		switch alive, r := state.(bool), input.(call); {
		case r.Kind == "revoke":
			return true, false
		case r.Outcome == "allow":
			return alive, alive
		default:
			return !alive, alive
		}
	},
}

// revocations: for each session and proxy, nobody is allowed after the bound, nor once denied; and nobody is denied before.
func revocations(h *history) *claim {
	c := &claim{Name: "revocations", Bounds: map[string]int{}}
	for key, records := range h.calls["session"] {
		records = onceUnknown(records)
		parts := map[string]*part{}
		for proxy := range h.proxies {
			parts[proxy] = &part{name: key + " at " + proxy, model: sessionModel}
		}
		for _, r := range records {
			if r.Kind == "visit" {
				if p := parts[r.Client]; p != nil && r.Outcome != "unknown" {
					p.add(r)
				}
				continue
			}
			for proxy, p := range parts {
				felt := r
				if r.Outcome == "ok" {
					name, bound := h.bound(proxy, r)
					c.Bounds[name]++
					felt.Return += bound
				}
				p.add(felt)
			}
		}
		for _, p := range parts {
			c.parts = append(c.parts, *p)
		}
	}
	return c
}

// onceUnknown leaves out all revocations without an answer but the first, whose time has in it those of the others.
func onceUnknown(records []call) []call {
	first := int64(forever)
	for _, r := range records {
		if r.Kind == "revoke" && r.Outcome == "unknown" {
			first = min(first, r.Call)
		}
	}
	return slices.DeleteFunc(slices.Clone(records), func(r call) bool {
		return r.Kind == "revoke" && r.Outcome == "unknown" && r.Call != first
	})
}

// bound is how long proxy may still allow after revoke was acknowledged, and its name.
func (h *history) bound(proxy string, revoke call) (string, int64) {
	name, bound := "other", h.bounds.Other
	if h.proxies[proxy] == revoke.Through {
		name, bound = "same", h.bounds.Same
	}
	for _, a := range h.apart[proxy] {
		affects := a.Only == "" || a.Only == name
		if affects && a.Call <= revoke.Return+bound && revoke.Call <= a.Return {
			return "apart", h.bounds.Apart
		}
	}
	return name, bound
}
