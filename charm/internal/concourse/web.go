package concourse

import (
	"maps"
	"net"
	"strconv"
)

// Database is where the web server keeps everything.
type Database struct {
	Host     string `json:"host"`
	Port     string `json:"port"`
	Name     string `json:"name"`
	User     string `json:"user"`
	Password string `json:"password"`
	TLS      bool   `json:"tls,omitempty"`
}

// environment tells a program of Concourse where the database is.
func (db Database) environment() map[string]string {
	sslmode := "disable"
	if db.TLS {
		sslmode = "require"
	}
	return map[string]string{
		"CONCOURSE_POSTGRES_HOST": db.Host, "CONCOURSE_POSTGRES_PORT": db.Port, "CONCOURSE_POSTGRES_DATABASE": db.Name,
		"CONCOURSE_POSTGRES_USER": db.User, "CONCOURSE_POSTGRES_PASSWORD": db.Password, "CONCOURSE_POSTGRES_SSLMODE": sslmode,
	}
}

// Web describes a web server.
type Web struct {
	Port           int      `json:"port"`
	Address        string   `json:"address"`                // of this unit, reachable by the other units
	ExternalURL    string   `json:"external_url,omitempty"` // empty derives it from Address and Port
	AdminUser      string   `json:"admin_user"`
	LogLevel       string   `json:"log_level"`
	Database       Database `json:"database"`
	Keys           Keys     `json:"keys"`
	AuthorizedKeys string   `json:"authorized_keys"`   // of the workers that may register, a line each
	Options        string   `json:"options,omitempty"` // variables, a line NAME=VALUE each
}

// Service is the service that runs the web server from a version.
func (w Web) Service(p Paths, version string) Service {
	external := w.ExternalURL
	if external == "" {
		external = "http://" + net.JoinHostPort(w.Address, strconv.Itoa(w.Port))
	}
	env := map[string]string{
		"CONCOURSE_BIND_PORT":            strconv.Itoa(w.Port),
		"CONCOURSE_EXTERNAL_URL":         external,
		"CONCOURSE_PEER_ADDRESS":         w.Address,
		"CONCOURSE_TSA_BIND_PORT":        strconv.Itoa(TSAPort),
		"CONCOURSE_TSA_HOST_KEY":         p.HostKey(),
		"CONCOURSE_TSA_AUTHORIZED_KEYS":  p.AuthorizedKeys(),
		"CONCOURSE_SESSION_SIGNING_KEY":  p.SigningKey(),
		"CONCOURSE_ADD_LOCAL_USER":       w.AdminUser + ":" + w.Keys.AdminPassword,
		"CONCOURSE_MAIN_TEAM_LOCAL_USER": w.AdminUser,
		"CONCOURSE_LOG_LEVEL":            w.LogLevel,
		"CONCOURSE_TSA_LOG_LEVEL":        w.LogLevel,
	}
	maps.Copy(env, w.Database.environment())
	capabilities := ""
	if w.Port < 1024 {
		capabilities = "AmbientCapabilities=CAP_NET_BIND_SERVICE\n"
	}
	return newService(p, ServerUnit, "Concourse CI web server", version, "web", env, w.Options,
		"User="+User+"\nGroup="+User+"\n"+capabilities+
			// Concourse reads the authorized worker keys again on SIGHUP.
			"ExecReload=/bin/kill -HUP $MAINPID\nTimeoutStopSec=30\n",
		File{Path: p.HostKey(), Content: w.Keys.HostKey, Owner: User},
		File{Path: p.SigningKey(), Content: w.Keys.SigningKey, Owner: User},
		File{Path: p.AuthorizedKeys(), Content: w.AuthorizedKeys, Owner: User, Reloaded: true},
	)
}

// Identity changes whenever the web server has to be restarted for what it is told here,
// whichever version it runs.
func (w Web) Identity() string { return w.Service(Paths{}, "").RestartDigest() }
