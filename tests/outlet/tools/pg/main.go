// Asks questions through the two PostgreSQL drivers of Go: pgx (Grafana's) in three of its modes, and lib/pq.
// Reads {"where": "host=…", "questions": [{"name": …, "sql": …, "least": …}]} and prints what went wrong, as JSON.
package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/lib/pq"
)

type question struct {
	Name, Sql string
	Least     int
}

type told struct {
	Asked  int
	Wrong  []string
	Values []string
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func byPgx(where string, mode pgx.QueryExecMode, questions []question, out *told) {
	config, err := pgx.ParseConfig(where)
	check(err)
	config.DefaultQueryExecMode = mode
	ctx := context.Background()
	client, err := pgx.ConnectConfig(ctx, config)
	check(err)
	defer client.Close(ctx)
	check(client.Ping(ctx))
	for _, one := range questions {
		count := 0
		rows, err := client.Query(ctx, one.Sql)
		if err == nil {
			for rows.Next() {
				if _, err = rows.Values(); err != nil {
					break
				}
				count++
			}
			rows.Close()
			if err == nil {
				err = rows.Err()
			}
		}
		out.Asked++
		if err != nil || count < one.Least {
			out.Wrong = append(out.Wrong, fmt.Sprintf("pgx %v, %s: %d rows, %v", mode, one.Name, count, err))
		}
	}
	var machine string
	var at time.Time
	var value float64
	check(client.QueryRow(ctx, "SELECT machine, at, value FROM silver.features WHERE machine = $1 ORDER BY at LIMIT 1", "press-1").Scan(&machine, &at, &value))
	out.Values = append(out.Values, fmt.Sprintf("%s %s %g", machine, at.UTC().Format(time.RFC3339Nano), value))
}

func byPq(where string, questions []question, out *told) {
	client, err := sql.Open("postgres", where)
	check(err)
	defer client.Close()
	check(client.Ping())
	for _, one := range questions {
		count := 0
		rows, err := client.Query(one.Sql)
		if err == nil {
			for rows.Next() {
				count++
			}
			err = rows.Err()
			rows.Close()
		}
		out.Asked++
		if err != nil || count < one.Least {
			out.Wrong = append(out.Wrong, fmt.Sprintf("lib/pq, %s: %d rows, %v", one.Name, count, err))
		}
	}
	prepared, err := client.Prepare("SELECT count(*) FROM silver.features WHERE machine = ANY($1) AND value >= $2")
	check(err)
	var count int64
	check(prepared.QueryRow(pq.Array([]string{"press-1", "press-2"}), 0.0).Scan(&count))
	_, refused := client.Exec("INSERT INTO silver.features (machine) VALUES ('x')")
	state := ""
	if said, known := refused.(*pq.Error); known {
		state = string(said.Code)
	}
	out.Values = append(out.Values, fmt.Sprintf("%d %s", count, state))
}

func main() {
	var asked struct {
		Where     string
		Questions []question
	}
	check(json.NewDecoder(os.Stdin).Decode(&asked))
	out := told{Wrong: []string{}}
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeSimpleProtocol} {
		byPgx(asked.Where, mode, asked.Questions, &out)
	}
	byPq(asked.Where, asked.Questions, &out)
	check(json.NewEncoder(os.Stdout).Encode(out))
}
