// Command coredns is CoreDNS with the few plugins that a cluster's own names need.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
)

func init() {
	// The order in which a query passes the plugins.
	dnsserver.Directives = []string{"errors", "cache", "kubernetes"}
}

func main() { coremain.Run() }
