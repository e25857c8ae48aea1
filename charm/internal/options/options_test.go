package options

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every field has one row of its type, and every row one field: no value can be read under
// a name that Juju does not know.
func TestEachFieldHasOneRow(t *testing.T) {
	var c Config
	rows := map[any]string{}
	for _, o := range Table {
		field := o.field(&c)
		require.Empty(t, rows[field], "%s has the field of another row", o.Name)
		rows[field] = o.Name
		require.Equal(t, reflect.TypeOf(o.Default), reflect.TypeOf(field).Elem(), o.Name)
	}
	fields := reflect.ValueOf(&c).Elem()
	for i := range fields.NumField() {
		if f := fields.Type().Field(i); f.IsExported() {
			require.NotEmpty(t, rows[fields.Field(i).Addr().Interface()], "%s has no row", f.Name)
		}
	}
}

func TestEachRowIsWhole(t *testing.T) {
	names, variables := map[string]bool{}, map[string]bool{}
	for _, o := range Table {
		require.False(t, names[o.Name], "%s is there twice", o.Name)
		names[o.Name] = true
		require.Regexp(t, `^[a-z][a-z-]+[a-z]$`, o.Name)
		require.Regexp(t, `(?s)^[A-Z].*\.$`, o.Doc, o.Name)
		require.Contains(t, []Role{Charm, Web, Worker, Both}, o.Role, o.Name)
		if o.Variable == "" {
			require.False(t, o.Derived || o.Since != "", o.Name)
			continue
		}
		require.False(t, variables[o.Variable], "%s is there twice", o.Variable)
		variables[o.Variable] = true
		require.NotEqual(t, Charm, o.Role, "%s is handed on to nobody", o.Name)
	}
	require.Empty(t, Wrong(Default()), "the defaults are fine")
}

// A value that Juju gives under the name of an option reaches its field.
func TestEachOptionIsRead(t *testing.T) {
	for _, o := range Table {
		var value any
		switch o.Default.(type) {
		case int:
			value = 17
		case bool:
			value = true
		default:
			value = "17m"
		}
		data, err := json.Marshal(map[string]any{o.Name: value, "unknown": 1})
		require.NoError(t, err)
		var c Config
		require.NoError(t, json.Unmarshal(data, &c))
		require.Equal(t, text(value), o.text(c), o.Name)
		changed := 0
		for _, other := range Table {
			if d := Default(); other.text(c) != other.text(d) {
				changed++
			}
		}
		require.Equal(t, 1, changed, "%s changes its own field only", o.Name)
	}
	require.ErrorContains(t, json.Unmarshal([]byte(`{"web-port": "many"}`), new(Config)), "web-port")
}

func TestWrong(t *testing.T) {
	for _, test := range []struct {
		change func(*Config)
		want   string // empty where it is fine
	}{
		{func(c *Config) { c.Mode = "cluster" }, `Unknown mode "cluster": set mode to one of auto, web, all`},
		{func(c *Config) { c.ReleaseURL = "example.com" }, `Malformed release-url "example.com": use the form https://github.com/concourse/concourse`},
		{func(c *Config) { c.ReleaseURL = "https:///o/r" }, `Malformed release-url "https:///o/r": use the form https://github.com/concourse/concourse`},
		{func(c *Config) { c.ReleaseURL = "" }, ""},
		{func(c *Config) { c.ReleaseDigest = "sha256:12" }, `Malformed release-digest "sha256:12": use the form sha256:HEX`},
		{func(c *Config) { c.WebPort = 0 }, "Unusable web-port 0: set web-port to a free port between 1 and 65535 other than 2222"},
		{func(c *Config) { c.WebPort = 65536 }, "Unusable web-port 65536: set web-port to a free port between 1 and 65535 other than 2222"},
		{func(c *Config) { c.WebPort = 8079 }, "Unusable web-port 8079: set web-port to a free port between 1 and 65535 other than 8079"},
		{func(c *Config) { c.WebPort = 8888 }, ""},
		{func(c *Config) { c.Mode, c.WebPort = "all", 8888 }, "Unusable web-port 8888: set web-port to a free port between 1 and 65535 other than 8888"},
		{func(c *Config) { c.ExternalURL = "ci.example.com" }, `Malformed external-url "ci.example.com": use the form https://ci.example.com`},
		{func(c *Config) { c.ExternalURL = "localhost:8080" }, `Malformed external-url "localhost:8080": use the form https://ci.example.com`},
		{func(c *Config) { c.ExternalURL = "https://" }, `Malformed external-url "https://": use the form https://ci.example.com`},
		{func(c *Config) { c.ExternalURL = "ftp://ci" }, `Malformed external-url "ftp://ci": use the form https://ci.example.com`},
		{func(c *Config) { c.ExternalURL = "http://[fd00::1]:8080/" }, ""},
		{func(c *Config) { c.InitialAdminUsername = "a,b" }, `Unusable initial-admin-username "a,b": use letters, digits, dots, dashes and @`},
		{func(c *Config) { c.LogLevel = "warn" }, `Unknown log-level "warn": set log-level to one of debug, info, error, fatal`},
	} {
		c := Default()
		test.change(&c)
		if test.want == "" {
			require.Empty(t, Wrong(c))
			continue
		}
		require.Equal(t, []string{test.want}, Wrong(c))
	}
}
