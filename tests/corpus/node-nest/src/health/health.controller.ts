import { Controller, Get } from '@nestjs/common';
import { HealthCheck, HealthCheckResult, HealthCheckService, HealthIndicatorResult, MemoryHealthIndicator } from '@nestjs/terminus';
import os from 'node:os';
import tls from 'node:tls';

@Controller('health')
export class HealthController {
  constructor(
    private readonly health: HealthCheckService,
    private readonly memory: MemoryHealthIndicator,
  ) {}

  @Get()
  @HealthCheck()
  check(): Promise<HealthCheckResult> {
    return this.health.check([
      () => this.memory.checkHeap('heap', 512 * 1024 * 1024),
      () => this.process(),
    ]);
  }

  private process(): HealthIndicatorResult {
    const context = tls.createSecureContext({ ca: tls.rootCertificates as string[] });
    return { process: { status: 'up', user: os.userInfo().username, authorities: Boolean(context.context) && tls.rootCertificates.length > 100 } };
  }
}
