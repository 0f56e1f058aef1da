package main

import "github.com/anishathalye/porcupine"

// A session is alive, then ending from when somebody began to revoke it, then over when a bound has passed. While it is
// ending it may be denied and let in again: an authorize that asked the databroker about it can be told older news later.
type session int

const (
	alive session = iota
	ending
	over
)

// A step is when a session begins to end, or is over.
type step struct {
	To session
	By call
}

var sessionModel = porcupine.Model{
	Init: func() any { return alive },
	Step: func(state, input, _ any) (bool, any) {
		now := state.(session)
		if s, ok := input.(step); ok {
			return true, max(now, s.To)
		}
		if input.(call).Outcome == "allow" {
			return now != over, now
		}
		return now != alive, now
	},
}

// revocations: for each session and proxy, nobody is let in after the bound, and nobody is denied before.
func revocations(h *history) *claim {
	c := &claim{Name: "revocations", Bounds: map[string]int{}}
	for key, records := range h.calls["session"] {
		for proxy := range h.proxies {
			p := part{name: key + " at " + proxy, model: sessionModel}
			for _, r := range records {
				switch {
				case r.Kind == "revoke":
					p.at(r.Call, step{ending, r})
					if r.Outcome == "ok" {
						name, bound := h.bound(proxy, r)
						c.Bounds[name]++
						p.at(r.Return+bound, step{over, r})
					}
				case r.Client == proxy && r.Outcome != "unknown":
					p.add(r)
				}
			}
			c.parts = append(c.parts, p)
		}
	}
	return c
}

// bound is how long proxy may still allow after revoke was acknowledged, and its name.
func (h *history) bound(proxy string, revoke call) (string, int64) {
	name, bound := "other", h.bounds.Other
	if h.proxies[proxy] == revoke.Through {
		name, bound = "same", h.bounds.Same
	}
	for _, a := range h.apart[proxy] {
		if a.Call <= revoke.Return+bound && revoke.Call <= a.Return {
			return "apart", h.bounds.Apart
		}
	}
	return name, bound
}
