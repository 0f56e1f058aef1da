package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// A call is what a client asked and was answered, as the models see it.
type call struct {
	Kind    string `json:"kind"`
	Key     string `json:"key"`               // of a register, a lease, a session
	Client  string `json:"client,omitempty"`  // who called
	Through string `json:"through,omitempty"` // the databroker that was asked; of a proxy: the one that it follows
	Call    int64  `json:"call"`              // times are nanoseconds of one clock that all clients read
	Return  int64  `json:"return"`
	Outcome string `json:"outcome"`
	Value   string `json:"value,omitempty"`
	Version int64  `json:"version,omitempty"`
	Lease   string `json:"lease,omitempty"`  // its id
	Length  int64  `json:"length,omitempty"` // asked for
}

// A record is a line of a history.
type record struct {
	call
	Bounds  bounds   `json:"bounds"`  // kind promise
	Proxies []string `json:"proxies"` // kind apart
}

// bounds are what is promised about a revocation, in nanoseconds from its acknowledgement to the last ALLOW.
type bounds struct {
	Same  int64 `json:"same"`  // where the proxy's authorize follows the databroker that acknowledged it
	Other int64 `json:"other"` // where it follows another one
	Apart int64 `json:"apart"` // where something is between them
}

// A history is what was recorded.
type history struct {
	bounds  bounds
	calls   map[string]map[string][]call // group → key
	proxies map[string]string            // proxy → the databroker that it follows
	apart   map[string][]call            // by proxy
}

// groups says which kinds are judged together.
var groups = map[string]string{
	"put": "register", "delete": "register", "get": "register",
	"acquire": "lease", "renew": "lease", "release": "lease",
	"revoke": "session", "visit": "session",
}

var outcomes = map[string]string{
	"put": "ok unknown", "delete": "ok unknown", "get": "ok absent unknown",
	"acquire": "ok refused unknown", "renew": "ok refused unknown", "release": "ok unknown",
	"revoke": "ok unknown", "visit": "allow deny unknown",
}

func read(in io.Reader) (*history, error) {
	h := &history{calls: map[string]map[string][]call{}, proxies: map[string]string{}, apart: map[string][]call{}}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		var r record
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if err := h.add(r); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	return h, lines.Err()
}

func (h *history) add(r record) error {
	switch r.Kind {
	case "promise":
		h.bounds = r.Bounds
		return nil
	case "proxy":
		h.proxies[r.Key] = r.Through
		return nil
	case "apart":
		for _, proxy := range r.Proxies {
			h.apart[proxy] = append(h.apart[proxy], r.call)
		}
		return nil
	}
	group := groups[r.Kind]
	if group == "" || r.Key == "" || r.Call <= 0 || r.Return < r.Call {
		return fmt.Errorf("nothing that can be judged: %+v", r.call)
	}
	if !slices.Contains(strings.Fields(outcomes[r.Kind]), r.Outcome) {
		return fmt.Errorf("a %s is not answered with %q", r.Kind, r.Outcome)
	}
	if h.calls[group] == nil {
		h.calls[group] = map[string][]call{}
	}
	h.calls[group][r.Key] = append(h.calls[group][r.Key], r.call)
	return nil
}
