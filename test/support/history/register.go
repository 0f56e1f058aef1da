package main

import "github.com/anishathalye/porcupine"

// A register is one record of the databroker: what was put last, unless it was deleted. A put is answered with the record's
// new version; that of one without an answer is not known until somebody reads it.
type register struct {
	value   string // "": none
	version int64
	exact   bool // version is it; if not, it is larger
}

var registerModel = porcupine.Model{
	Init: func() any { return register{} },
	Step: func(state, input, _ any) (bool, any) {
		s, r := state.(register), input.(call)
		switch {
		case r.Kind == "get" && r.Outcome == "absent":
			return s.value == "", s
		case r.Kind == "get":
			return s.value == r.Value && (s.exact && s.version == r.Version || !s.exact && s.version < r.Version),
				register{r.Value, r.Version, true}
		case r.Outcome == "unknown":
			return true, register{r.Value, s.version, false}
		default: // put and delete, which leaves no value
			return s.version < r.Version, register{r.Value, r.Version, true}
		}
	},
}

// registers: each record behaves as if there was one copy of it, whichever databroker is asked. So there is no stale read
// after an acknowledged write.
func registers(h *history) *claim {
	c := &claim{Name: "registers"}
	for key, records := range h.calls["register"] {
		seen := map[string]bool{}
		for _, r := range records {
			if r.Kind == "get" && r.Outcome == "ok" {
				seen[r.Value] = true
			}
		}
		p := part{name: key, model: registerModel}
		for _, r := range records {
			// A get without an answer says nothing. Nor does a put without one whose value nobody ever read: each is
			// put once, so an order in which it happened stays one without it.
			if r.Outcome != "unknown" || r.Kind == "delete" || r.Kind == "put" && seen[r.Value] {
				p.add(r)
			}
		}
		c.parts = append(c.parts, p)
	}
	return c
}
