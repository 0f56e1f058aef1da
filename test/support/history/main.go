// A judge of what clients of the databroker saw while the network was cut. It reads a history, one JSON object a line
// (README.md), from standard input, and lets porcupine decide whether there is an order in which it could have happened.
// It prints a report in JSON and exits 0 when all is well, 1 when something cannot have happened, 2 when the history
// itself cannot be read or judged.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"time"

	"github.com/anishathalye/porcupine"
)

// forever is when a call returned that had no answer: it may have happened at any time since, or never.
const forever = int64(1) << 62

const (
	patience = 60 * time.Second // for one part; parts are small
	shown    = 12               // operations on either side of an impossible step
)

// A part is all that concerns one key: it is judged alone.
type part struct {
	name  string
	model porcupine.Model
	calls []porcupine.Operation
}

func (p *part) add(r call) {
	if r.Outcome == "unknown" {
		r.Return = forever
	}
	p.calls = append(p.calls, porcupine.Operation{Input: r, Call: r.Call, Return: r.Return})
}

// at adds what happened in one moment.
func (p *part) at(when int64, what any) {
	p.calls = append(p.calls, porcupine.Operation{Input: what, Call: when, Return: when})
}

// A claim is what must hold, with the parts that show it.
type claim struct {
	Name       string `json:"claim"`
	Parts      int    `json:"parts"`
	Operations int    `json:"operations"`
	// Of revocations: how many were judged by each of the bounds.
	Bounds     map[string]int `json:"bounds,omitempty"`
	Violations []string       `json:"violations"`
	parts      []part
}

func (c *claim) judge() error {
	c.Parts, c.Violations = len(c.parts), []string{}
	for _, p := range c.parts {
		c.Operations += len(p.calls)
		switch result, info := porcupine.CheckOperationsVerbose(p.model, p.calls, patience); result {
		case porcupine.Illegal:
			c.Violations = append(c.Violations, p.name+"\n"+p.where(info))
		case porcupine.Unknown:
			return fmt.Errorf("%s: %s: %d operations are too many to judge", c.Name, p.name, len(p.calls))
		}
	}
	return nil
}

// where is the place at which an order ends, as text: the longest that there is, its last steps, and what cannot follow.
func (p *part) where(info porcupine.LinearizationInfo) string {
	var best []porcupine.Operation
	for _, order := range info.PartialLinearizationsOperations()[0] {
		if len(order) > len(best) {
			best = order
		}
	}
	done := map[porcupine.Operation]bool{}
	for _, op := range best {
		done[op] = true
	}
	text := ""
	for _, op := range best[max(0, len(best)-shown):] {
		text += "  then    " + describe(op)
	}
	rest := []porcupine.Operation{}
	for _, op := range p.calls {
		if !done[op] {
			rest = append(rest, op)
		}
	}
	sort.SliceStable(rest, func(i, j int) bool { return rest[i].Return < rest[j].Return })
	for _, op := range rest[:min(shown, len(rest))] {
		text += "  never   " + describe(op)
	}
	return text
}

func describe(op porcupine.Operation) string {
	end := "no answer"
	if op.Return != forever {
		end = fmt.Sprintf("%.3f", float64(op.Return)/1e6)
	}
	text, _ := json.Marshal(op.Input) // numbers and texts
	return fmt.Sprintf("%.3f .. %s ms  %s\n", float64(op.Call)/1e6, end, text)
}

func main() {
	h, err := read(os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, "history:", err)
		os.Exit(2)
	}
	claims := []*claim{registers(h), leases(h), holders(h), revocations(h)}
	code := 0
	for _, c := range claims {
		if err := c.judge(); err != nil {
			fmt.Fprintln(os.Stderr, "history:", err)
			os.Exit(2)
		}
		if len(c.Violations) > 0 {
			code = 1
		}
	}
	report := json.NewEncoder(os.Stdout)
	report.SetIndent("", "  ")
	if err := report.Encode(claims); err != nil {
		os.Exit(2)
	}
	os.Exit(code)
}
