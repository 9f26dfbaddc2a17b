import { keepCompiledCode } from './compiled-code.ts'

// Where the process begins. What is imported in the ordinary way is compiled before the first line here runs.
keepCompiledCode()
await import('./program.ts')
