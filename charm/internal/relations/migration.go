package relations

import (
	"fmt"
	"strings"
)

// Grant is the setting Migration: the one unit that changes the schema while no web server
// of the application runs. Once it is over, the ID alone stays, so that the next has another.
type Grant struct {
	ID       string
	Unit     string // empty while nobody changes the schema
	Version  string // whose program does it
	From, To int64  // schemas
}

// ParseGrant reads the setting.
func ParseGrant(value string) (g Grant) {
	if _, err := fmt.Sscanf(value, "%s %s %s %d %d", &g.ID, &g.Unit, &g.Version, &g.From, &g.To); err != nil {
		id, _, _ := strings.Cut(value, " ")
		return Grant{ID: id}
	}
	return g
}

// String is the setting.
func (g Grant) String() string {
	if g.Unit == "" {
		return g.ID
	}
	return fmt.Sprintf("%s %s %s %d %d", g.ID, g.Unit, g.Version, g.From, g.To)
}

// Up tells whether the schema is taken up.
func (g Grant) Up() bool { return g.To > g.From }

// Before is the setting SchemaBefore: with what schema the change to that of a version was
// begun. It is there until a web server of the version has served.
type Before struct {
	Version string
	Schema  int64
}

// ParseBefore reads the setting.
func ParseBefore(value string) (b Before) {
	if _, err := fmt.Sscanf(value, "%s %d", &b.Version, &b.Schema); err != nil {
		return Before{}
	}
	return b
}

// String is the setting.
func (b Before) String() string {
	if b.Version == "" {
		return ""
	}
	return fmt.Sprintf("%s %d", b.Version, b.Schema)
}

// Due is the setting SchemaDue.
type Due struct {
	Version             string // that is to run
	Database, Supported int64  // schema that there is, and that of the version
}

// ParseDue reads the setting.
func ParseDue(value string) (d Due) {
	if _, err := fmt.Sscanf(value, "%s %d %d", &d.Version, &d.Database, &d.Supported); err != nil {
		return Due{}
	}
	return d
}

// String is the setting.
func (d Due) String() string {
	if d.Version == "" {
		return ""
	}
	return fmt.Sprintf("%s %d %d", d.Version, d.Database, d.Supported)
}
