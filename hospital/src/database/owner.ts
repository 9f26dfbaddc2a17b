import pg from 'pg'

/**
 * Runs `work` on a connection of its own as whoever the connection string names: the owner or a superuser, whom row security does not hold back. For
 * commands that look at all facilities at once; the service has Database.
 */
export async function asOwner<Result>(
  { connectionString, name }: { readonly connectionString: string; readonly name: string },
  work: (client: pg.Client) => Promise<Result>,
): Promise<Result> {
  const client = new pg.Client({
    connectionString,
    application_name: name,
    options: '-c search_path=hospital,pg_temp -c timezone=UTC -c jit=off',
  })
  // A connection that breaks fails its query, and that is enough: an error event that nobody hears would end the process.
  client.on('error', () => undefined)
  await client.connect()
  try {
    return await work(client)
  } finally {
    await client.end()
  }
}
