package main

import "github.com/anishathalye/porcupine"

// A lease is held by an id until some moment between two: the databroker counts from when it decided, which is between call
// and return.
type lease struct {
	id       string // "": nobody's
	from, to int64  // it ends between these
}

const somebody = "?" // whose acquire had no answer

var leaseModel = porcupine.Model{
	Init: func() any { return lease{} },
	Step: func(state, input, _ any) (bool, any) {
		s, r := state.(lease), input.(call)
		asked := lease{r.Lease, r.Call + r.Length, r.Return + r.Length}
		mine := s.id == r.Lease
		switch {
		case r.Kind == "release":
			if mine {
				return true, lease{}
			}
			return true, s
		case r.Outcome == "refused" && r.Kind == "acquire":
			return s.id != "" && s.to >= r.Call, s
		case r.Outcome == "refused":
			return !mine || s.from <= r.Return, s
		case r.Outcome == "unknown" && r.Kind == "acquire":
			return s.id == "" || s.from <= r.Return, lease{somebody, asked.from, forever}
		case r.Outcome == "unknown":
			if mine {
				return true, lease{s.id, min(s.from, asked.from), forever}
			}
			return true, s
		case r.Kind == "renew":
			return mine && s.to >= r.Call, asked
		default: // acquire
			return s.id == "" || s.from <= r.Return, asked
		}
	},
}

// leases: nobody gets one that another's has not ended, and nobody is refused one that is free.
func leases(h *history) *claim {
	c := &claim{Name: "leases"}
	for key, records := range h.calls["lease"] {
		p := part{name: key, model: leaseModel}
		for _, r := range records {
			p.add(r)
		}
		c.parts = append(c.parts, p)
	}
	return c
}

// A turn is a holder's entry, or its end.
type turn struct {
	Holder string
	Enters bool
}

var holderModel = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, input, _ any) (bool, any) {
		t := input.(turn)
		if t.Enters {
			return state == "", t.Holder
		}
		return state == t.Holder, ""
	},
}

// holders: there are never two at a time, by what each may think by its own clock: from the answer to its acquire until the
// time that it asked for has passed since it asked.
func holders(h *history) *claim {
	c := &claim{Name: "holders"}
	for key, records := range h.calls["lease"] {
		p := part{name: key, model: holderModel}
		for holder, times := range beliefs(records) {
			for _, t := range times {
				p.at(t.begin, turn{holder, true})
				p.at(t.end, turn{holder, false})
			}
		}
		c.parts = append(c.parts, p)
	}
	return c
}

type span struct{ begin, end int64 }

// beliefs are the times in which each id's holder may think that it holds. Its calls follow one another.
func beliefs(records []call) map[string][]span {
	held := map[string][]span{}
	for _, r := range records {
		spans := held[r.Lease]
		last := len(spans) - 1
		until := r.Call + r.Length
		switch {
		case r.Kind == "acquire" && r.Outcome == "ok":
			spans = append(spans, span{r.Return, until})
		case last < 0: // an acquire that was refused or had no answer gives nobody anything
			continue
		case r.Kind == "release":
			spans[last].end = min(spans[last].end, r.Call)
		case r.Outcome == "refused":
			spans[last].end = min(spans[last].end, r.Return)
		case r.Outcome == "unknown": // it may have been made shorter
			spans[last].end = min(spans[last].end, until)
		case r.Return <= spans[last].end: // renewed in time
			spans[last].end = until
		default:
			spans = append(spans, span{r.Return, until})
		}
		held[r.Lease] = spans
	}
	delete(held, "")
	for id, spans := range held {
		kept := []span{}
		for _, s := range spans {
			if s.begin < s.end { // an answer that came too late gives nothing
				kept = append(kept, s)
			}
		}
		held[id] = kept
	}
	return held
}
